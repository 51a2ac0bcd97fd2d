"""Searching: both halves at once, fused, reranked, made diverse, each step told."""

import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from meshkit.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    MeshError,
    NotFound,
    ResourceExhausted,
    Unavailable,
    invalid,
)
from meshkit.timing import Stopwatch
from retriever_svc.diversifying import diversify
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
    encoder_mismatch,
    no_collection,
    refuse_dimension,
)
from retriever_svc.search import Degradation, Embedder, Find, Hit, Mode, Result, Search
from retriever_svc.together import together

logger = logging.getLogger(__name__)

_MAX_CHUNKS_READ = 10_000
# Failures of the embedder that a search can do without it for.
_BEARABLE = (Unavailable, ResourceExhausted, DeadlineExceeded, NotFound, FailedPrecondition)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a search considers where it does not say."""

    candidates: int
    rerank_candidates: int


class Searching:
    """Searches the collections of all tenants; its app opens and closes what it works with."""

    def __init__(self, index: Index, embedder: Embedder, limits: Limits) -> None:
        self._index = index
        self._embedder = embedder
        self._limits = limits

    async def search(self, scope: Scope, search: Search) -> Result:
        """The hits.

        Raises NotFound (COLLECTION_NOT_FOUND), InvalidArgument (INVALID_FILTER, INVALID_FIELD), FailedPrecondition
        (ENCODER_MISMATCH), Unavailable (INDEX_UNAVAILABLE) and, for a dense search, the embedder's own error.
        """
        _check(search)
        watch = Stopwatch()
        state = await self._state(scope)
        if search.vector is not None:
            refuse_dimension(state.spec, len(search.vector))
        condition = parse(search.filter, state.spec.fields)
        run = _Run(self._index, self._embedder, self._limits, scope, state, search, condition, watch)
        return await run.result()

    async def read_around(self, scope: Scope, place: Place, window: int) -> tuple[Chunk | None, tuple[Chunk, ...]]:
        """The chunk at the place, if there is one, and those around it, in order."""
        spec = (await self._state(scope)).spec
        chunks = await self._index.read(scope, spec, _around(place, window))
        return chunks.get(place), _neighbours(place, window, chunks)

    async def list(self, scope: Scope, document: str, first: int, limit: int) -> list[Chunk]:
        """At most so many chunks of the document, in order, from the ordinal `first` on."""
        spec = (await self._state(scope)).spec
        places = [Place(document, ordinal) for ordinal in range(first, first + limit)]
        chunks = await self._index.read(scope, spec, places)
        return [chunks[place] for place in places if place in chunks]

    async def _state(self, scope: Scope) -> State:
        state = await self._index.load(scope)
        if state is None:
            raise no_collection(scope)
        return state


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

    @property
    def spec(self) -> IndexSpec:
        return self.state.spec

    @property
    def candidates(self) -> int:
        return max(self.search.candidates or self.limits.candidates, self.search.top_k)

    async def result(self) -> Result:
        finds = [Find(fused, fused.score) for fused in await self._fused()]
        if self.search.rerank and finds:
            finds = await self._reranked(finds)
        if self.search.min_score:
            finds = [find for find in finds if find.score >= self.search.min_score]
        if self.search.diversity and finds:
            finds = await self._diverse(finds)
        hits = await self._hits(finds[: self.search.top_k])
        return Result(tuple(hits), tuple(self.degradations), self.watch.stages, self.state.version)

    async def _fused(self) -> list[Fused[Place]]:
        if self.search.mode is Mode.DENSE:
            return alone(dense=await self._dense())
        if self.search.mode is Mode.SPARSE:
            return alone(sparse=await self._sparse())
        dense, sparse = await together([self._dense_if_it_can, self._sparse], limit=2)
        method = self.search.fusion or self.spec.fusion or Weighted()
        with self.watch.stage("fuse"):
            if dense is None and isinstance(method, Weighted):
                method = Weighted(dense=0.0)
            return fuse(method, dense or [], sparse or [])

    async def _dense_if_it_can(self) -> list[Scored] | None:
        if self.search.vector is not None:
            return await self._nearest(self.search.vector)
        try:
            vector = await self._encoded()
        except _BEARABLE as error:
            self._degraded("dense", error)
            return None
        return await self._nearest(vector)

    async def _dense(self) -> list[Scored]:
        given = self.search.vector
        return await self._nearest(given if given is not None else await self._encoded())

    async def _encoded(self) -> Vectors:
        with self.watch.stage("embed"):
            encoded = await self.embedder.encode(self.search.query)
        if encoded.encoder != self.spec.encoder:
            raise encoder_mismatch(self.spec.encoder, encoded.encoder)
        refuse_dimension(self.spec, len(encoded.vector))
        return encoded.vector

    async def _nearest(self, vector: Vectors) -> list[Scored]:
        with self.watch.stage("dense"):
            return await self.index.search_dense(self.scope, self.spec, vector, self.candidates, self.condition)

    async def _sparse(self) -> list[Scored]:
        with self.watch.stage("sparse"):
            return await self.index.search_sparse(
                self.scope, self.spec, self.search.query, self.candidates, self.condition
            )

    async def _reranked(self, finds: list[Find]) -> list[Find]:
        """The best of the finds in the cross-encoder's order; as they were where there is none."""
        considered = finds[: max(self.limits.rerank_candidates, self.search.top_k)]
        chunks = await self._read([find.fused.place for find in considered])
        # One deleted since it was found is not missed.
        considered = [find for find in considered if find.fused.place in chunks]
        texts = [chunks[find.fused.place].text for find in considered]
        try:
            with self.watch.stage("rerank"):
                scores = await self.embedder.rerank(self.search.query, texts)
        except _BEARABLE as error:
            self._degraded("rerank", error)
            return finds
        scored = zip(considered, scores, strict=True)
        reranked = [replace(find, score=score, rerank_score=score) for find, score in scored]
        return sorted(reranked, key=lambda find: -find.score)

    async def _diverse(self, finds: list[Find]) -> list[Find]:
        """The finds in an order that repeats less, as many as asked for."""
        considered = finds[: self.candidates]
        vectors = await self.index.vectors(self.scope, self.spec, [find.fused.place for find in considered])
        considered = [find for find in considered if find.fused.place in vectors]
        if not considered:
            return []
        stacked = np.stack([vectors[find.fused.place] for find in considered])
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

    async def _read(self, places: Collection[Place]) -> dict[Place, Chunk]:
        with self.watch.stage("read"):
            return await self.index.read(self.scope, self.spec, places)

    def _degraded(self, stage: str, error: MeshError) -> None:
        logger.warning("search goes on without its stage %s: %s", stage, error)
        self.degradations.append(Degradation(stage, error.reason))


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
    around = _around(place, window)
    return tuple(chunks[other] for other in around if other != place and other in chunks)
