"""The adapter to converted encoders."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embedder_svc import openvino_model
from embedder_svc.encoding import EncoderCard, Length, ModelOptions, Task, Vectors
from embedder_svc.openvino_model import OpenVinoModel


class OpenVinoEncoder:
    """An Encoder over a converted model; lives as long as its process, nothing to close."""

    def __init__(self, model: OpenVinoModel, card: EncoderCard, prompts: dict[Task, str]) -> None:
        self.card = card
        self._model = model
        self._prompts = prompts

    @classmethod
    def load(cls, folder: Path, options: ModelOptions) -> "OpenVinoEncoder":
        """Load and warm the converted model in the folder; raises LoadError."""
        model = openvino_model.load(folder, "encoder", options.load)
        manifest = model.manifest
        card = EncoderCard(
            name=options.name,
            revision=manifest.revision,
            max_tokens=manifest.max_tokens,
            backend=openvino_model.BACKEND,
            dimension=manifest.dimension,
            matryoshka_dimensions=options.matryoshka_dimensions or manifest.matryoshka_dimensions,
        )
        own = {Task(task): prompt for task, prompt in manifest.prompts.items()}
        encoder = cls(model, card, {**own, **options.prompts})
        encoder.encode(["warm"], Task.DOCUMENT)
        return encoder

    def lengths(self, texts: Sequence[str], task: Task) -> list[Length]:
        """The length of each text, prompt and special tokens included."""
        return self._model.tokenizer.lengths(self._prompted(texts, task))

    def char_ends(self, texts: Sequence[str]) -> list[list[int]]:
        """For each text the character after each token's last one."""
        return self._model.tokenizer.char_ends(texts)

    def encode(self, texts: Sequence[str], task: Task) -> Vectors:
        """One row of unit length a text, in order; raises MeshError where the device fails."""
        rows = self._model.run(self._prompted(texts, task))
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)

    def _prompted(self, texts: Sequence[str], task: Task) -> list[str]:
        prompt = self._prompts[task]
        return [prompt + text for text in texts]
