"""What a search asks, what it needs of the embedder, and what it gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from meshkit.errors import Unavailable
from meshkit.timing import Stage
from retriever_svc.fusion import Fused, Fusion
from retriever_svc.index import Chunk, Place, Vectors


class Mode(Enum):
    """How to search."""

    DENSE = "dense"
    SPARSE = "sparse"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True)
class Search:
    """What to search for and how; None and 0 leave the choice to the collection and the server."""

    query: str = ""
    vector: Vectors | None = None
    mode: Mode = Mode.HYBRID
    top_k: int = 10
    filter: str = ""
    fusion: Fusion | None = None
    rerank: bool = False
    candidates: int = 0
    diversity: float = 0.0
    window: int = 0
    min_score: float = 0.0


@dataclass(frozen=True, slots=True)
class Find:
    """A chunk found: the score that orders it, and how it came to it."""

    fused: Fused[Place]
    score: float
    rerank_score: float | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A find with its chunk and, in order, those around it."""

    find: Find
    chunk: Chunk
    window: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Degradation:
    """A part of the work that was left out, and the published reason."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class Result:
    """The hits, best first, and what there is to tell of the search."""

    hits: tuple[Hit, ...]
    degradations: tuple[Degradation, ...]
    stages: tuple[Stage, ...]
    version: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """The queries' vectors [n, dimension] and the encoder, `name@revision`, that made them."""

    vectors: Vectors
    encoder: str


class Embedder(Protocol):
    """Encodes queries and orders texts; raises the peer's MeshError, Unavailable (PEER_UNAVAILABLE) for instance."""

    async def encode(self, encoder: str, queries: Sequence[str]) -> Encoded:
        """The queries' vectors; by another encoder where the embedder has not the one, `name@revision`, asked for."""
        ...

    async def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """The texts' scores for the query, in the order of the texts; NotFound where no reranker is configured."""
        ...


def too_slow() -> Unavailable:
    """The error for an embedder that takes longer than a search waits for it."""
    message = "the embedder does not answer in time"
    return Unavailable("PEER_UNAVAILABLE", message, metadata={"peer": "embedder"})
