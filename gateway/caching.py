"""Answers given again: to the same question, and to one that asks the same in other words."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from gateway.answers import Citation, Grounding
from gateway.generation import Usage
from gateway.likeness import same_sense, sense_of
from gateway.nearest import CachedQuestion, Known, Nearest
from gateway.recent import Recent
from gateway.retrieval import Edition, Hit
from meshkit.errors import MeshError

logger = logging.getLogger(__name__)

_CANDIDATES = 4
# What encoders read of a text; thousands of longer ones would fill the memory of all replicas.
_MAX_COMPARED_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as the cache knows it: equal ones share the `key`, those that may be answered alike the `kind`."""

    tenant: str
    collection: str
    text: str
    key: str
    kind: str


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it is kept to be given again; `made_s` is the time of day that it was made at."""

    edition: str
    question: str
    hits: tuple[Hit, ...]
    text: str
    citations: tuple[Citation, ...]
    grounding: tuple[Grounding, ...]
    usage: Usage
    made_s: float = 0.0

    def size_bytes(self) -> int:
        """About the bytes that it takes."""
        texts = sum(len(chunk.text) for hit in self.hits for chunk in hit.chunks())
        return 1000 * (1 + len(self.hits) + len(self.citations)) + 2 * (texts + len(self.text))


class How(Enum):
    """How an answer came to be given again, or that it did not."""

    EXACT = "exact"
    SEMANTIC = "semantic"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the cache has for a question, and what it found out on the way.

    `vector` is the question's by the collection's encoder, b"" where it was not needed; `similarity` its cosine to the
    question whose answer is given again.
    """

    how: How = How.NONE
    kept: Kept | None = None
    similarity: float = 0.0
    edition: Edition | None = None
    vector: bytes = b""


@dataclass(frozen=True, slots=True)
class Knobs:
    """How much is kept and how alike questions must be; `similarity` above 1 leaves likeness out."""

    ttl_s: int
    similarity: float
    timeout_s: float
    max_questions: int
    max_collections: int
    memory_bytes: int
    max_answer_bytes: int
    max_filling: int


class Editions(Protocol):
    """Knows what collections are now."""

    async def edition(self, collection: str) -> Edition:
        """The collection's content and settings as they are; raises MeshError."""
        ...


class QueryEncoder(Protocol):
    """Turns a query into a vector."""

    async def encode(self, encoder: str, query: str) -> bytes:
        """Little-endian 32-bit floats by that encoder, b"" where there is another; raises MeshError."""
        ...


class AnswerShelf(Protocol):
    """Keeps answers and cached questions for all replicas; its methods raise Unavailable STORE_UNAVAILABLE."""

    async def read(self, asked: Asked, after: str) -> tuple[Kept | None, Sequence[CachedQuestion]]:
        """The answer under the question's key, and the collection's cached questions since the one of id `after`."""
        ...

    async def get(self, tenant: str, key: str) -> Kept | None:
        """The answer under the key."""
        ...

    async def put(self, asked: Asked, kept: Kept, vector: bytes) -> None:
        """Keep the answer under the question's key, and the question for its collection where there is a vector."""
        ...


class AnswerCache:
    """The answers that may be given again; made and closed by `open_answer_cache`.

    What this process has of them stands in `_recent` and `_nearest`, which the tasks of all questions change, each
    between two awaits. `hits` counts the lookups by how they ended.
    """

    def __init__(self, editions: Editions, encoder: QueryEncoder, shelf: AnswerShelf, knobs: Knobs) -> None:
        self.hits = dict.fromkeys(How, 0)
        self._editions = editions
        self._encoder = encoder
        self._shelf = shelf
        self._knobs = knobs
        self._recent = Recent[Kept](knobs.memory_bytes, knobs.ttl_s, Kept.size_bytes)
        self._nearest = Nearest(knobs.max_collections, knobs.max_questions)
        self._filling: set[asyncio.Task[None]] = set()

    async def find(self, asked: Asked) -> Lookup:
        """The answer to give again, if there is one; a cache that fails or is slow has none."""
        lookup = Lookup()
        try:
            async with asyncio.timeout(self._knobs.timeout_s):
                lookup = await self._find(asked)
        except (MeshError, TimeoutError) as error:
            # What is wrong with the collection, its search says.
            logger.debug("nothing is given again: %r", error)
        self.hits[lookup.how] += 1
        return lookup

    async def look(self, asked: Asked) -> Lookup:
        """What `find` finds out but for an answer: for a question whose answer is only to be kept."""
        try:
            async with asyncio.timeout(self._knobs.timeout_s):
                return Lookup(edition=await self._editions.edition(asked.collection))
        except (MeshError, TimeoutError):
            return Lookup()

    def keep(self, asked: Asked, kept: Kept, lookup: Lookup) -> None:
        """Keep the answer for those who ask next, in the background."""
        kept = replace(kept, made_s=time.time())
        if kept.size_bytes() > self._knobs.max_answer_bytes or len(self._filling) >= self._knobs.max_filling:
            return
        self._recent.put(asked.key, kept, kept.made_s)
        task = asyncio.create_task(self._fill(asked, kept, lookup))
        self._filling.add(task)
        task.add_done_callback(self._filling.discard)

    async def settled(self) -> None:
        """Wait until what was kept is there for all replicas."""
        await asyncio.gather(*self._filling)

    async def close(self) -> None:
        """Keep no more."""
        for task in self._filling:
            task.cancel()
        await asyncio.gather(*self._filling, return_exceptions=True)

    async def _find(self, asked: Asked) -> Lookup:
        if kept := self._recent.get(asked.key):
            lookup = _exact(kept, await self._editions.edition(asked.collection))
            if lookup.kept:
                return lookup
        known = self._nearest.known(asked.tenant, asked.collection)
        # While the store is asked: most questions are new, and their searches need their vectors too.
        encoding = asyncio.create_task(self._encode_ahead(asked, known))
        try:
            edition, (kept, questions) = await asyncio.gather(
                self._editions.edition(asked.collection), self._shelf.read(asked, known.last_id)
            )
            known.add(questions)
            lookup = _exact(kept, edition)
            if kept and lookup.kept:
                self._recent.put(asked.key, kept, kept.made_s)
                return lookup
            if not (self._compares(asked) and known.any(asked.kind, of(edition))):
                return lookup
            ahead = await encoding if known.encoder == edition.encoder else b""
        finally:
            encoding.cancel()
        known.encoder = edition.encoder
        vector = ahead or await self._encoder.encode(edition.encoder, asked.text)
        return await self._similar(asked, known, replace(lookup, vector=vector), of(edition))

    async def _encode_ahead(self, asked: Asked, known: Known) -> bytes:
        """The question's vector by the encoder that the collection had last; b"" where that is not known."""
        with suppress(MeshError):
            if known.encoder and self._compares(asked):
                return await self._encoder.encode(known.encoder, asked.text)
        return b""

    def _compares(self, asked: Asked) -> bool:
        """Whether the question may be like others; a long one is found by its equals only."""
        return self._knobs.similarity <= 1 and len(asked.text) <= _MAX_COMPARED_CHARS

    async def _similar(self, asked: Asked, known: Known, lookup: Lookup, edition: str) -> Lookup:
        sense = sense_of(asked.text)
        for question, similarity in known.nearest(asked.kind, edition, lookup.vector, _CANDIDATES):
            if similarity < self._knobs.similarity:
                break
            if not same_sense(sense, sense_of(question.text)):
                continue
            kept = await self._get(asked.tenant, question.key)
            if kept and kept.edition == question.edition:
                return replace(lookup, how=How.SEMANTIC, kept=kept, similarity=similarity)
        return lookup

    async def _get(self, tenant: str, key: str) -> Kept | None:
        kept = self._recent.get(key)
        if kept is None and (kept := await self._shelf.get(tenant, key)):
            self._recent.put(key, kept, kept.made_s)
        return kept

    async def _fill(self, asked: Asked, kept: Kept, lookup: Lookup) -> None:
        try:
            vector = lookup.vector
            if not vector and lookup.edition and self._compares(asked):
                vector = await self._encoder.encode(lookup.edition.encoder, asked.text)
            await self._shelf.put(asked, kept, vector)
        except MeshError as error:
            logger.info("an answer is not kept for others: %r", error)


@asynccontextmanager
async def open_answer_cache(
    editions: Editions, encoder: QueryEncoder, shelf: AnswerShelf, knobs: Knobs
) -> AsyncIterator[AnswerCache]:
    """The cache for the body."""
    cache = AnswerCache(editions, encoder, shelf, knobs)
    try:
        yield cache
    finally:
        await cache.close()


def of(edition: Edition) -> str:
    """What is kept of an edition: answers of another are not given again."""
    return f"{edition.version}.{edition.settings}"


def _exact(kept: Kept | None, edition: Edition) -> Lookup:
    if kept and kept.edition == of(edition):
        return Lookup(How.EXACT, kept, 1.0, edition)
    return Lookup(edition=edition)
