"""What the gateway asks of the retriever and gets from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range of bytes of a UTF-8 text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document; `source` is its place in the document's extracted text."""

    name: str
    document: str
    text: str
    source: Span
    ordinal: int = 0
    page: int = 0
    heading_path: tuple[str, ...] = ()
    title: str = ""
    uri: str = ""
    token_count: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    content_hash: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk found, its score, and its neighbours in the document where they were asked for."""

    chunk: Chunk
    score: float
    window: tuple[Chunk, ...] = ()

    def chunks(self) -> tuple[Chunk, ...]:
        """The chunk first, then its neighbours."""
        return (self.chunk, *self.window)

    def in_order(self) -> list[Chunk]:
        """The chunk among its neighbours, in the order of the document."""
        return sorted(self.chunks(), key=lambda chunk: chunk.ordinal)

    def passage(self) -> str:
        """The text to answer from: all of the chunks, each in lines of its own."""
        return "\n".join(chunk.text for chunk in self.in_order())


@dataclass(frozen=True, slots=True)
class Degradation:
    """A part of the work that was left out, and the published reason why."""

    stage: str
    reason: str


class SearchMode(Enum):
    """How to search; the values are the contract's numbers."""

    DENSE = 1
    SPARSE = 2
    HYBRID = 3


@dataclass(frozen=True, slots=True)
class Search:
    """A search of one collection; `vector` is the query's by the collection's encoder, where it is known already."""

    collection: str
    query: str
    top_k: int
    mode: SearchMode = SearchMode.HYBRID
    filter: str = ""
    rerank: bool = False
    diversity: float = 0.0
    window: int = 0
    vector: bytes = b""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, best first, and the version of the collection that was searched."""

    hits: tuple[Hit, ...]
    degradations: tuple[Degradation, ...] = ()
    version: int = 0


@dataclass(frozen=True, slots=True)
class Edition:
    """What a collection's searches find depends on: the version of its content, and its settings by their hash."""

    version: int
    settings: str
    encoder: str


class Retriever(Protocol):
    """Searches the chunks of the current identity's tenant."""

    async def search(self, search: Search) -> Found:
        """The best hits; raises MeshError, COLLECTION_NOT_FOUND or INVALID_FILTER for instance."""
        ...
