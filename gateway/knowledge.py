"""What the gateway asks of ingestion and of the encoder, for the OpenAI surface."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection of the current identity's tenant; `name` is `collections/{collection}`."""

    name: str
    create_time: datetime


class Catalog(Protocol):
    """Knows the collections; its methods raise MeshError."""

    async def list_collections(self) -> Sequence[Collection]:
        """All of the current tenant's collections, by name."""
        ...


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of texts: rows of little-endian 32-bit floats, `dimension` in each."""

    rows: tuple[bytes, ...]
    dimension: int
    model: str
    tokens: int


class Encoder(Protocol):
    """Turns texts into vectors; raises MeshError."""

    async def embed(self, model: str, texts: Sequence[str], dimensions: int) -> Embedded:
        """One row a text, in order; `dimensions` 0 for all, `model` "" for the default one."""
        ...
