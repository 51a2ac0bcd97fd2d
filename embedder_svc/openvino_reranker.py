"""The adapter to converted cross-encoders."""

from collections.abc import Sequence
from pathlib import Path

from embedder_svc import openvino_model
from embedder_svc.encoding import Card, Length, ModelOptions, Vectors
from embedder_svc.openvino_model import OpenVinoModel


class OpenVinoReranker:
    """A Reranker over a converted cross-encoder; lives as long as its process, nothing to close."""

    def __init__(self, model: OpenVinoModel, card: Card) -> None:
        self.card = card
        self._model = model

    @classmethod
    def load(cls, folder: Path, options: ModelOptions) -> "OpenVinoReranker":
        """Load and warm the converted model in the folder; raises LoadError."""
        model = openvino_model.load(folder, "reranker", options.load)
        card = Card(options.name, model.manifest.revision, model.manifest.max_tokens, openvino_model.BACKEND)
        reranker = cls(model, card)
        reranker.score([("warm", "up")])
        return reranker

    def lengths(self, query: str, texts: Sequence[str]) -> list[Length]:
        """The length of each pair, special tokens included."""
        return self._model.tokenizer.lengths([(query, text) for text in texts])

    def score(self, pairs: Sequence[tuple[str, str]]) -> Vectors:
        """One score a pair, in order; raises MeshError where the device fails."""
        return self._model.run(pairs)
