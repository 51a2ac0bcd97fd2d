"""What an encoder and a reranker are to this service, whatever library runs them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


class LoadError(Exception):
    """A model cannot be loaded; the words say which and why."""


class Task(Enum):
    """What a vector is for: some encoders put another prompt before queries than before documents."""

    DOCUMENT = "document"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a model.

    The device is `auto`, `cpu`, `cuda` or `cuda:1`; the backend `auto`, `openvino` (for the CPU) or `torch`; the
    dtype `auto`, `float32`, `bfloat16` or `float16` (torch only). With `auto` they are a GPU with torch in the
    dtype of the weights where there is a GPU, else the CPU with OpenVINO, in bfloat16 where the CPU multiplies
    that faster. Texts are cut at `max_tokens` even where the model reads more. With 0 threads
    there is one for each core. A model that is not on disk is downloaded only where `download` allows it. What
    is converted to ONNX is kept in `conversion_folder`.
    """

    device: str = "auto"
    backend: str = "auto"
    dtype: str = "auto"
    max_tokens: int = 8192
    threads: int = 0
    download: bool = False
    conversion_folder: Path = Path("data", "models")


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which model, the name that requests give it, and what of its own is overridden.

    The model is the bundled one's name, a folder or a hub's name. Prompts and Matryoshka dimensions, which
    rerankers do not have, are the model's own where not given.
    """

    model: str
    name: str
    load: LoadOptions = field(default_factory=LoadOptions)
    prompts: Mapping[Task, str] = field(default_factory=dict)
    matryoshka_dimensions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """A model about itself: `max_tokens` is the longest text it reads, special tokens and prompt included."""

    name: str
    revision: str
    max_tokens: int
    backend: str

    @property
    def versioned(self) -> str:
        """`name@revision`: equal where vectors or scores may be compared."""
        return f"{self.name}@{self.revision}"


@dataclass(frozen=True, slots=True)
class EncoderCard(Card):
    """An encoder about itself."""

    dimension: int
    matryoshka_dimensions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Length:
    """Tokens of a text as encoded, and whether the text had more and was cut."""

    tokens: int
    truncated: bool


class Encoder(Protocol):
    """Makes vectors. `encode` runs in one thread at a time; the other methods may run beside it."""

    @property
    def card(self) -> EncoderCard:
        """What it is."""

    def lengths(self, texts: Sequence[str], task: Task) -> list[Length]:
        """The length of each text, prompt and special tokens included."""

    def char_ends(self, texts: Sequence[str]) -> list[list[int]]:
        """For each text the character after each token's last one; whole texts, without special tokens."""

    def encode(self, texts: Sequence[str], task: Task) -> Vectors:
        """One row of unit length a text, in order; raises MeshError where the device fails."""


class Reranker(Protocol):
    """Scores pairs of query and text. `score` runs in one thread at a time; `lengths` may run beside it."""

    @property
    def card(self) -> Card:
        """What it is."""

    def lengths(self, query: str, texts: Sequence[str]) -> list[Length]:
        """The length of each pair, special tokens included."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> Vectors:
        """One score a pair (shape [n]), in order; raises MeshError where the device fails."""
