"""Searching: both halves at once, fused, reranked, made diverse, each step told."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np

from meshkit import deadline
from meshkit.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    MeshError,
    NotFound,
    ResourceExhausted,
    Unavailable,
    at_field,
    invalid,
)
from meshkit.timing import Stopwatch
from retriever_svc.diversifying import diversify
from retriever_svc.encoding import Encoding, Wanted, encoding
from retriever_svc.filtering import Condition, parse
from retriever_svc.fusion import Fused, Weighted, alone, fuse
from retriever_svc.index import (
    Chunk,
    Index,
    IndexSpec,
    Place,
    Scope,
    Scored,
    State,
    Vectors,
    find,
    no_collection,
    refuse_dimension,
    stored,
)
from retriever_svc.reading import Readers
from retriever_svc.search import Degradation, Embedder, Find, Hit, Mode, Result, Search, too_slow
from retriever_svc.together import together

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_Half = Callable[[], Awaitable[list[Scored] | None]]

_MAX_CHUNKS_READ = 10_000
# Failures of the embedder that a search can do without it for.
_BEARABLE = (Unavailable, ResourceExhausted, DeadlineExceeded, NotFound, FailedPrecondition)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a search considers where it does not say, and how long it waits.

    For what it can do without it waits for the share `patience` of its time. `at_once` searches of a batch run at once.
    """

    candidates: int = 100
    rerank_candidates: int = 50
    patience: float = 0.5
    at_once: int = 4


class Searching:
    """Searches the collections of all tenants; its app opens and closes what it works with."""

    def __init__(self, index: Index, embedder: Embedder, limits: Limits, readers: Readers) -> None:
        self._index = index
        self._embedder = embedder
        self._limits = limits
        self._readers = readers

    async def search(self, scope: Scope, search: Search) -> Result:
        """The hits.

        Raises NotFound (COLLECTION_NOT_FOUND), InvalidArgument (INVALID_FILTER, INVALID_FIELD), FailedPrecondition
        (ENCODER_MISMATCH), Unavailable (INDEX_UNAVAILABLE) and, for a dense search, the embedder's own error.
        """
        watch = Stopwatch()
        _check(search)
        with self._readers.reading(scope):
            run = self._run(scope, await find(self._index, scope), search, watch)
            async with encoding(self._embedder, run.to_encode) as vectors:
                return await run.result(vectors)

    async def batch(self, searches: Sequence[tuple[Scope, Search]]) -> list[Result]:
        """The hits of each, in order.

        A collection's state is read once for all its searches, and their queries are encoded together. Raises as
        `search` does, with the first failure and the path of its search, `searches[3]`; the others end with it.
        """
        watches = [Stopwatch() for _ in searches]
        for place, (_, search) in enumerate(searches):
            with _of_batch(place):
                _check(search)
        scopes = list(dict.fromkeys(scope for scope, _ in searches))
        with ExitStack() as reading:
            for scope in scopes:
                reading.enter_context(self._readers.reading(scope))
            return await self._batch(scopes, searches, watches)

    async def _batch(
        self, scopes: Sequence[Scope], searches: Sequence[tuple[Scope, Search]], watches: Sequence[Stopwatch]
    ) -> list[Result]:
        loaded = await together([partial(find, self._index, scope) for scope in scopes], self._limits.at_once)
        states = dict(zip(scopes, loaded, strict=True))
        runs: list[_Run] = []
        for place, ((scope, search), watch) in enumerate(zip(searches, watches, strict=True)):
            with _of_batch(place):
                runs.append(self._run(scope, states[scope], search, watch))
        async with encoding(self._embedder, [wanted for run in runs for wanted in run.to_encode]) as vectors:
            each = [partial(_result_of, place, run, vectors) for place, run in enumerate(runs)]
            return await together(each, self._limits.at_once)

    def _run(self, scope: Scope, state: State | None, search: Search, watch: Stopwatch) -> "_Run":
        if state is None:
            raise no_collection(scope)
        if search.vector is not None:
            refuse_dimension(state.spec, len(search.vector))
        condition = parse(search.filter, state.spec.fields, scope.name)
        held = stored(scope, state.chunks)
        return _Run(self._index, self._embedder, self._limits, held, state, search, condition, watch)

    async def read_around(self, scope: Scope, place: Place, window: int) -> tuple[Chunk | None, tuple[Chunk, ...]]:
        """The chunk at the place, if there is one, and those around it, in order."""
        chunks = await self._read(scope, _around(place, window))
        return chunks.get(place), _neighbours(place, window, chunks)

    async def list(self, scope: Scope, document: str, first: int, limit: int) -> list[Chunk]:
        """At most so many chunks of the document, in order, from the ordinal `first` on."""
        places = [Place(document, ordinal) for ordinal in range(first, first + limit)]
        chunks = await self._read(scope, places)
        return [chunks[place] for place in places if place in chunks]

    async def _read(self, scope: Scope, places: Collection[Place]) -> dict[Place, Chunk]:
        with self._readers.reading(scope):
            state = await find(self._index, scope)
            if state is None:
                raise no_collection(scope)
            return await self._index.read(stored(scope, state.chunks), state.spec, places)


@dataclass(frozen=True, slots=True)
class _Run:
    """One search."""

    index: Index
    embedder: Embedder
    limits: Limits
    scope: Scope
    state: State
    search: Search
    condition: Condition | None
    watch: Stopwatch
    degradations: list[Degradation] = field(default_factory=list)
    # The chunks read so far: what was read to be reranked is not read again.
    chunks: dict[Place, Chunk] = field(default_factory=dict)

    @property
    def spec(self) -> IndexSpec:
        return self.state.spec

    @property
    def candidates(self) -> int:
        """How many each half finds; no more than the hits where nothing changes a half's own order."""
        search = self.search
        ordered_anew = search.mode is Mode.HYBRID or search.rerank or search.diversity
        return max(search.candidates or (self.limits.candidates if ordered_anew else 0), search.top_k)

    @property
    def considered(self) -> int:
        """The fused candidates that may become hits."""
        if self.search.diversity:
            return self.candidates
        return max(self.limits.rerank_candidates, self.search.top_k) if self.search.rerank else self.search.top_k

    @property
    def to_encode(self) -> list[Wanted]:
        """The query, where its vector is wanted and not given."""
        wanted = self.search.vector is None and self.search.mode is not Mode.SPARSE
        return [(self.spec.encoder, self.search.query)] if wanted else []

    async def result(self, vectors: Encoding) -> Result:
        finds = [Find(fused, fused.score) for fused in (await self._fused(vectors))[: self.considered]]
        if self.search.rerank and finds:
            finds = await self._reranked(finds)
        if self.search.min_score:
            finds = [find for find in finds if find.score >= self.search.min_score]
        if self.search.diversity and finds:
            finds = await self._diverse(finds)
        hits = await self._hits(finds[: self.search.top_k])
        return Result(tuple(hits), tuple(self.degradations), self.watch.stages, self.state.version)

    async def _fused(self, vectors: Encoding) -> list[Fused[Place]]:
        if self.search.mode is Mode.DENSE:
            return alone(dense=await self._nearest(await self._vector(vectors)))
        if self.search.mode is Mode.SPARSE:
            return alone(sparse=await self._sparse())
        halves: list[_Half] = [partial(self._dense_if_it_can, vectors), self._sparse]
        dense, sparse = await together(halves, limit=2)
        method = self.search.fusion or self.spec.fusion or Weighted()
        with self.watch.stage("fuse"):
            if dense is None and isinstance(method, Weighted):
                method = Weighted(dense=0.0)
            return fuse(method, dense or [], sparse or [])

    async def _dense_if_it_can(self, vectors: Encoding) -> list[Scored] | None:
        vector = await self._bearing("dense", self._vector(vectors))
        return None if vector is None else await self._nearest(vector)

    async def _vector(self, vectors: Encoding) -> Vectors:
        """The query's vector, as given or encoded."""
        if self.search.vector is not None:
            return self.search.vector
        with self.watch.stage("embed"):
            vector = await vectors.vector((self.spec.encoder, self.search.query))
        refuse_dimension(self.spec, len(vector))
        return vector

    async def _nearest(self, vector: Vectors) -> list[Scored]:
        with self.watch.stage("dense"):
            found = await self.index.search_dense(self.scope, self.spec, vector, self.candidates, self.condition)
            return self._kept(found)

    async def _sparse(self) -> list[Scored]:
        with self.watch.stage("sparse"):
            found = await self.index.search_sparse(
                self.scope, self.spec, self.search.query, self.candidates, self.condition
            )
            return self._kept(found)

    def _kept(self, found: list[Scored]) -> list[Scored]:
        self.chunks.update({one.place: one.chunk for one in found if one.chunk is not None})
        return found

    async def _reranked(self, finds: list[Find]) -> list[Find]:
        """The best of the finds in the cross-encoder's order; as they were where there is none."""
        considered = finds[: max(self.limits.rerank_candidates, self.search.top_k)]
        chunks = await self._read([find.fused.place for find in considered])
        # One deleted since it was found is not missed.
        considered = [find for find in considered if find.fused.place in chunks]
        texts = [chunks[find.fused.place].text for find in considered]
        with self.watch.stage("rerank"):
            scores = await self._bearing("rerank", self.embedder.rerank(self.search.query, texts))
        if scores is None:
            return finds
        scored = zip(considered, scores, strict=True)
        reranked = [replace(find, score=score, rerank_score=score) for find, score in scored]
        return sorted(reranked, key=lambda find: -find.score)

    async def _diverse(self, finds: list[Find]) -> list[Find]:
        """The finds in an order that repeats less, as many as asked for."""
        considered = finds[: self.candidates]
        vectors = await self.index.vectors(self.scope, self.spec, [find.fused.place for find in considered])
        # What waits for its vector is like nothing else.
        unlike = np.zeros(self.spec.dimension, dtype=np.float32)
        stacked = np.stack([vectors.get(find.fused.place, unlike) for find in considered])
        scores = [find.score for find in considered]
        chosen = diversify(scores, stacked, self.search.diversity, self.search.top_k)
        return [considered[place] for place in chosen]

    async def _hits(self, finds: list[Find]) -> list[Hit]:
        window = self.search.window
        wanted = {place for find in finds for place in _around(find.fused.place, window)}
        chunks = await self._read(wanted)
        return [
            Hit(find, chunks[find.fused.place], _neighbours(find.fused.place, window, chunks))
            for find in finds
            if find.fused.place in chunks
        ]

    async def _read(self, places: Collection[Place]) -> Mapping[Place, Chunk]:
        with self.watch.stage("read"):
            if missing := [place for place in places if place not in self.chunks]:
                self.chunks.update(await self.index.read(self.scope, self.spec, missing))
        return self.chunks

    async def _bearing(self, stage: str, work: Awaitable[_Result]) -> _Result | None:
        """The work's result; None where the embedder fails it or takes more than its share of the time left."""
        limit = deadline.current()
        timer = asyncio.timeout(limit.remaining_s() * self.limits.patience if limit else None)
        try:
            async with timer:
                return await work
        except _BEARABLE as error:
            self._degraded(stage, error)
        except TimeoutError:
            if not timer.expired():
                raise
            self._degraded(stage, too_slow())
        return None

    def _degraded(self, stage: str, error: MeshError) -> None:
        logger.warning("search goes on without its stage %s: %s", stage, error)
        self.degradations.append(Degradation(stage, error.reason))


async def _result_of(place: int, run: _Run, vectors: Encoding) -> Result:
    with _of_batch(place):
        return await run.result(vectors)


def _of_batch(place: int) -> AbstractContextManager[None]:
    """Errors in the body are those of the search at the place."""
    return at_field(f"searches[{place}]")


def _check(search: Search) -> None:
    """Raise InvalidArgument for a search that no collection can answer."""
    needs_query = search.vector is None or search.mode is not Mode.DENSE or search.rerank
    if needs_query and not search.query.strip():
        raise invalid("query", "is empty; only a dense search by a vector needs none")
    if search.vector is not None and not search.vector.any():
        raise invalid("vector", "is zero, and so near to nothing")
    if not math.isfinite(search.min_score):
        raise invalid("min_score", "is not finite")
    if search.top_k * (2 * search.window + 1) > _MAX_CHUNKS_READ:
        raise invalid("window", f"with top_k asks for more than {_MAX_CHUNKS_READ} chunks")


def _around(place: Place, window: int) -> list[Place]:
    """The place and those within the window before and after it, in order."""
    first = max(place.ordinal - window, 0)
    return [Place(place.document, ordinal) for ordinal in range(first, place.ordinal + window + 1)]


def _neighbours(place: Place, window: int, chunks: Mapping[Place, Chunk]) -> tuple[Chunk, ...]:
    around = _around(place, window) if window else []
    return tuple(chunks[other] for other in around if other != place and other in chunks)
