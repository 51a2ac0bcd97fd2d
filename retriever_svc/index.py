"""What an index holds and does, whatever keeps it."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from meshkit.errors import FailedPrecondition, NotFound, not_found
from retriever_svc.filtering import Condition, FieldType
from retriever_svc.fusion import Fusion

Vectors = NDArray[np.float32]

# The most bytes of a chunk's texts, so that any index takes them and compares those that filters name.
MAX_BYTES = {"text": 65_535, "title": 4096, "uri": 4096, "content_hash": 128}


class Language(Enum):
    """How BM25 cuts text into words."""

    STANDARD = "standard"
    ENGLISH = "english"
    CHINESE = "chinese"


@dataclass(frozen=True, slots=True)
class Scope:
    """A collection of a tenant: what a call may read and write, and nothing beside it."""

    tenant: str
    collection: str

    @property
    def name(self) -> str:
        """`collections/{collection}`, as callers know it."""
        return f"collections/{self.collection}"


class Place(NamedTuple):
    """A chunk's place in its collection: the document's id and the ordinal, from 0 without gaps."""

    # A tuple, as a search makes and looks up hundreds: it is hashed and compared without a call of ours.

    document: str
    ordinal: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is stored and searched; `start` and `end` are bytes of the document's extracted text."""

    place: Place
    text: str
    start: int = 0
    end: int = 0
    page: int = 0
    heading_path: tuple[str, ...] = ()
    title: str = ""
    uri: str = ""
    token_count: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    content_hash: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """What a document has: its chunks (ordinals 0 to n-1), with their vectors [n, dimension] or without."""

    document: str
    chunks: Sequence[Chunk]
    vectors: Vectors | None


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """The settings of a collection's index; `fields` are those of the metadata that filters may name."""

    encoder: str
    dimension: int
    language: Language = Language.STANDARD
    fusion: Fusion | None = None
    fields: Mapping[str, FieldType] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replaced:
    """The chunks that an index had before another took its place, until they are deleted."""

    spec: IndexSpec
    chunks: str


@dataclass(frozen=True, slots=True)
class State:
    """An index as it is; `version` is another after each change of the content, also across a deletion.

    `gaps` says whether a document may miss some of its ordinals, because chunks were deleted by a filter. `chunks`
    names the scope that its chunks are stored in, "" for its own (see `stored`); no two indexes made share one.
    `successor` is the collection that it was built for, once it is being put in its place (see `find`).
    """

    spec: IndexSpec
    version: int
    gaps: bool = False
    chunks: str = ""
    replaced: Replaced | None = None
    successor: str = ""


@dataclass(frozen=True, slots=True)
class Scored:
    """A chunk found by one half of a search: cosine similarity or BM25, more is better.

    `chunk` is the chunk itself where the index had it at hand, which spares reading it.
    """

    place: Place
    score: float
    chunk: Chunk | None = field(default=None, compare=False)


class Index(Protocol):
    """Keeps the chunks of all tenants, each within its scope, and beside them the state of each scope's index.

    The chunks of an index are in the scope that its state names, which is not always its own.

    What a write has answered for is durable, and found by the next search. Every method raises Unavailable
    (INDEX_UNAVAILABLE) where the index does not answer.
    """

    @property
    def engine(self) -> str:
        """What keeps it: `lance`, `milvus-lite`, `milvus`."""
        ...

    async def scopes(self) -> list[Scope]:
        """The scopes that have an index."""
        ...

    async def load(self, scope: Scope) -> State | None:
        """The state of the scope's index, or None where it has none."""
        ...

    async def save(self, scope: Scope, state: State) -> None:
        """Keep the state, and be ready for chunks under its settings."""
        ...

    async def forget(self, scope: Scope) -> None:
        """Delete the state; the chunks are deleted before."""
        ...

    async def upsert(self, scope: Scope, spec: IndexSpec, chunks: Sequence[Chunk], vectors: Vectors | None) -> None:
        """Write the chunks with their vectors [n, dimension], over those at the same places.

        Without vectors they are found by words only.
        """
        ...

    async def replace(self, scope: Scope, state: State, contents: Sequence[Content]) -> list[int]:
        """Write the documents' chunks and delete what each had beyond them; say how many those were, of each.

        No document is in it twice. Cut off by a crash it may leave both of some, unless the index can do it in one
        step; doing it again makes it good.
        """
        ...

    async def delete(self, scope: Scope, spec: IndexSpec, *conditions: Condition) -> int:
        """Delete the chunks that meet every condition, and count them."""
        ...

    async def count(self, scope: Scope, spec: IndexSpec, *conditions: Condition) -> int:
        """Count the chunks that meet every condition."""
        ...

    async def search_dense(
        self, scope: Scope, spec: IndexSpec, vector: Vectors, limit: int, condition: Condition | None
    ) -> list[Scored]:
        """The chunks nearest to the vector [dimension] by cosine, best first."""
        ...

    async def search_sparse(
        self, scope: Scope, spec: IndexSpec, query: str, limit: int, condition: Condition | None
    ) -> list[Scored]:
        """The chunks that score best for the query's words by BM25, best first; those without any are left out."""
        ...

    async def read(self, scope: Scope, spec: IndexSpec, places: Collection[Place]) -> dict[Place, Chunk]:
        """The chunks at the places; a place without one is left out."""
        ...

    async def vectors(self, scope: Scope, spec: IndexSpec, places: Collection[Place]) -> dict[Place, Vectors]:
        """The vectors [dimension] of the chunks at the places; a place without a chunk or a vector is left out."""
        ...

    def scan(self, scope: Scope, spec: IndexSpec) -> AsyncIterator[tuple[list[Chunk], Vectors | None]]:
        """All chunks with their vectors [n, dimension], or some that have none, at a time, in no order."""
        ...

    async def check(self) -> bool:
        """Whether it answers."""
        ...


def stored(scope: Scope, chunks: str) -> Scope:
    """The scope that chunks are stored in, of an index whose state names it so."""
    return Scope(scope.tenant, chunks or scope.collection)


async def find(index: Index, scope: Scope) -> State | None:
    """The state of the scope's index; None where it has none, or where that has taken its successor's place."""
    state = await index.load(scope)
    if state is None or not state.successor:
        return state
    successor = Scope(scope.tenant, state.successor)
    now = await index.load(successor)
    taken = now is not None and stored(successor, now.chunks) == stored(scope, state.chunks)
    return None if taken else state


def no_collection(scope: Scope) -> NotFound:
    """The error for a scope without an index."""
    return not_found("collection", scope.name, "COLLECTION_NOT_FOUND")


def refuse_dimension(spec: IndexSpec, dimension: int) -> None:
    """Raise FailedPrecondition for vectors of another dimension than the index's."""
    if dimension != spec.dimension:
        raise encoder_mismatch(str(spec.dimension), str(dimension))


def refuse_encoder(spec: IndexSpec, encoder: str) -> None:
    """Raise FailedPrecondition for another encoder than the index's; "" is any."""
    if encoder not in ("", spec.encoder):
        raise encoder_mismatch(spec.encoder, encoder)


def encoder_mismatch(expected: str, given: str) -> FailedPrecondition:
    """The error for vectors that are not of the collection's encoder."""
    message = f"the collection's vectors are of {expected}, not of {given}"
    return FailedPrecondition("ENCODER_MISMATCH", message, metadata={"expected": expected, "given": given})
