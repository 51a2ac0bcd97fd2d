"""The adapter to sentence-transformers' encoders."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from embedder_svc import torch_model, weights
from embedder_svc.encoding import EncoderCard, Length, LoadOptions, Task, Vectors

# Under these names models keep their prompts; the first found counts, else the model's default one.
_PROMPT_NAMES = {Task.QUERY: ("query",), Task.DOCUMENT: ("document", "passage", "corpus")}


class SentenceTransformerEncoder:
    """An Encoder over a SentenceTransformer; lives as long as its process, nothing to close."""

    def __init__(self, model: Any, card: EncoderCard, prompts: Mapping[Task, str]) -> None:
        self.card = card
        self._model = model
        self._prompts = prompts
        self._tokenizer = torch_model.tokenizer(model)

    @classmethod
    def load(
        cls,
        model: str,
        name: str,
        options: LoadOptions,
        *,
        prompts: Mapping[Task, str] | None = None,
        matryoshka_dimensions: tuple[int, ...] = (),
    ) -> "SentenceTransformerEncoder":
        """Load and warm the model: the bundled one, a folder, or a hub's name; raises LoadError.

        Prompts and Matryoshka dimensions not given are the model's own.
        """
        loaded = torch_model.load(SentenceTransformer, model, options)
        card = EncoderCard(
            name=name,
            revision=weights.revision(weights.locate(model)),
            max_tokens=loaded.max_seq_length,
            backend=torch_model.backend(loaded),
            dimension=loaded.get_embedding_dimension(),
            matryoshka_dimensions=matryoshka_dimensions
            or tuple(getattr(loaded.config, "matryoshka_dimensions", None) or ()),
        )
        encoder = cls(loaded, card, {**_own_prompts(loaded), **(prompts or {})})
        for task in Task:
            encoder.encode(["warm"], task)
        return encoder

    def lengths(self, texts: Sequence[str], task: Task) -> list[Length]:
        """The length of each text, prompt and special tokens included."""
        prompt = self._prompts[task]
        return self._tokenizer.lengths([prompt + text for text in texts])

    def char_ends(self, texts: Sequence[str]) -> list[list[int]]:
        """For each text the character after each token's last one."""
        return self._tokenizer.char_ends(texts)

    def encode(self, texts: Sequence[str], task: Task) -> Vectors:
        """One row of unit length a text, in order; raises MeshError where the device fails."""
        encode = self._model.encode_query if task is Task.QUERY else self._model.encode_document
        with torch_model.device_errors():
            rows = encode(
                list(texts),
                prompt=self._prompts[task],
                batch_size=len(texts),
                show_progress_bar=False,
                convert_to_tensor=True,
            )
            # Made of unit length in float32, whatever the model computes in.
            unit = torch.nn.functional.normalize(rows.float(), dim=1)
            return np.asarray(unit.cpu().numpy(), dtype=np.float32)


def _own_prompts(model: Any) -> dict[Task, str]:
    prompts: Mapping[str, str] = model.prompts
    default = prompts.get(model.default_prompt_name or "", "")
    return {
        task: next((prompts[name] for name in names if name in prompts), default)
        for task, names in _PROMPT_NAMES.items()
    }
