"""The adapter to sentence-transformers' cross-encoders."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sentence_transformers import CrossEncoder

from embedder_svc import torch_model, weights
from embedder_svc.encoding import Card, Length, LoadError, LoadOptions, Vectors


class CrossEncoderReranker:
    """A Reranker over a CrossEncoder; lives as long as its process, nothing to close."""

    def __init__(self, model: Any, card: Card) -> None:
        self.card = card
        self._model = model
        self._tokenizer = torch_model.tokenizer(model)

    @classmethod
    def load(cls, model: str, name: str, options: LoadOptions) -> "CrossEncoderReranker":
        """Load and warm the model: a folder or a hub's name; raises LoadError."""
        loaded = torch_model.load(CrossEncoder, model, options)
        if loaded.num_labels != 1:
            raise LoadError(f"{model}: gives {loaded.num_labels} scores a pair; a reranker gives one")
        revision = weights.revision(weights.locate(model))
        card = Card(name, revision, max_tokens=loaded.max_seq_length, backend=torch_model.backend(loaded))
        reranker = cls(loaded, card)
        reranker.score([("warm", "up")])
        return reranker

    def lengths(self, query: str, texts: Sequence[str]) -> list[Length]:
        """The length of each pair, special tokens included."""
        return self._tokenizer.lengths([(query, text) for text in texts])

    def score(self, pairs: Sequence[tuple[str, str]]) -> Vectors:
        """One score a pair, in order; raises MeshError where the device fails."""
        with torch_model.device_errors():
            scores = self._model.predict(list(pairs), batch_size=len(pairs), show_progress_bar=False)
            return np.asarray(scores, dtype=np.float32)
