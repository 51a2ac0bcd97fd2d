"""The LanceDB table of one collection: its rows written, searched and kept in order."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta

import numpy as np
import pyarrow as pa
from lancedb import AsyncTable
from lancedb.index import FTS, Bitmap, BTree, IvfRq, IvfSq, LabelList
from lancedb.query import AsyncQueryBase, AsyncVectorQuery, MatchQuery
from numpy.typing import NDArray

from meshkit import deadline
from retriever_svc import lance_rows, lance_sync
from retriever_svc.filtering import FieldType
from retriever_svc.index import Chunk, Content, IndexSpec, Language, Place, Scored, Vectors
from retriever_svc.lance_filter import ENCODED, LIVE, field_of, literal
from retriever_svc.lance_options import LanceOptions
from retriever_svc.words import words_of_query

logger = logging.getLogger(__name__)

# Writes are searched row by row until they are indexed: this many rows, or writes, before that is worth its while.
_STALE_ROWS = 500
_STALE_WRITES = 20
# Of the time, at most one part in so many goes into keeping a table in order.
_REST = 4
# How often writes may come between before they wait.
_PATIENCE = 3
# Versions younger than this may be in the middle of being read.
_KEPT = timedelta(minutes=1)
# An index of vectors is made anew when there are so many times the rows it was made of.
_GROWTH = 4
# How an index is tried: so many queries, with more and more probes; asked for more than ten, as searches are.
_TRIALS = 32
_TRIED_PROBES = (4, 8, 16, 32, 64, 128, 256, 512)
_TRIED_LIMIT = 100
_ALL_PROBES = 1_000_000
# One-bit distances only say which rows to compare by their whole vectors: so many times those asked for.
_REFINE = {"ivf_rq": 5}
_LONGEST_WORD = 255
# What finds the rows of a filter, by the type of its field.
_FIELD_INDEXES = {FieldType.BOOL: Bitmap, FieldType.TEXT_LIST: LabelList}
_PAGE_ROWS = 8192
# A search for no more rows than that reads them whole.
_FEW = 20

_TEXT_INDEX = "words_index"
_VECTOR_INDEX = "vector_index"
# Under the name `ragmesh.probes` there are numbers that were found out while every search read all lists.
_PROBES = "ragmesh.lists_read"
_MADE_OF = "ragmesh.made_of"
_KIND = "ragmesh.kind"


class LanceTable:
    """The chunks of one collection; it lives as long as the index keeps it open, and needs no closing.

    Writes go one after another; a replacement is one commit, seen whole or not at all. Searches and upkeep go on beside
    them. What is not indexed yet is found all the same.
    """

    def __init__(self, table: AsyncTable, columns: pa.Schema, options: LanceOptions) -> None:
        self._table = table
        self._columns = columns
        self._options = options
        self._folder = options.folder / f"{table.name}.lance"
        # Held by who writes. Upkeep takes it only where writes have made it fail.
        self._lock = asyncio.Lock()
        # Files that are on the disk, so far as this process is to blame.
        self._synced: frozenset[str] = frozenset()
        self._stale_rows = 0
        self._stale_writes = 0
        self._rest_until = 0.0
        self._crowded_out = 0
        # What must not lose the table, or the files it reads.
        self._tidying = False
        self._scans = 0
        self._kind = ""
        self._probes = 0
        self._tried = True
        self._made_of = 0

    @property
    def busy(self) -> bool:
        """Whether somebody writes to it, scans it or puts it in order."""
        return self._lock.locked() or self._tidying or self._scans > 0

    @property
    def due(self) -> bool:
        """Whether there is enough to put in order, and the last time is long enough ago."""
        stale = self._stale_rows >= _STALE_ROWS or self._stale_writes >= _STALE_WRITES
        return stale and not self._scans and time.monotonic() >= self._rest_until

    async def inspect(self) -> None:
        """Find out how the table is indexed."""
        self._synced = await asyncio.to_thread(lance_sync.files, self._folder)
        indexes = {index.name: index for index in await self._table.list_indices()}
        if text := indexes.get(_TEXT_INDEX):
            self._stale_rows = text.num_unindexed_rows or 0
        if _VECTOR_INDEX in indexes:
            # Made and not tried, should a crash have come between, it is searched thoroughly until put in order.
            notes = self._columns.field("vector").metadata or {}
            self._kind = notes.get(_KIND.encode(), b"ivf_rq").decode()
            self._probes = self._options.probes or int(notes.get(_PROBES.encode(), 0))
            if not self._probes:
                self._probes, self._tried = _TRIED_PROBES[-1], False
                self._stale_writes = _STALE_WRITES
            self._made_of = int(notes.get(_MADE_OF.encode(), 0))
        elif await self._table.count_rows() >= self._options.index_rows:
            self._stale_writes = _STALE_WRITES

    async def make_indexes(self, spec: IndexSpec) -> None:
        """The indexes that every table has from the first."""
        text = FTS(
            stem=spec.language is Language.ENGLISH,
            remove_stop_words=False,
            max_token_length=_LONGEST_WORD,
        )
        await self._table.create_index("words", config=text, name=_TEXT_INDEX)
        await self._table.create_index("key", config=BTree(), name="key_index")
        await self._table.create_index("document", config=BTree(), name="document_index")
        await self._sync()

    async def fit(self, spec: IndexSpec) -> None:
        """Give the table the columns of the metadata that the settings name, filled and indexed; take others away."""
        wanted = {field.name: field for field in lance_rows.metadata_columns(spec)}
        async with self._writing(0):
            if gone := [name for name in self._columns.names if field_of(name) and name not in wanted]:
                await self._table.drop_columns(gone)
            added = [field for name, field in wanted.items() if name not in self._columns.names]
            if added:
                await self._table.add_columns(added)
                await self._fill(added)
            await self._index_fields(wanted)
            self._columns = await self._table.schema()

    async def upsert(self, chunks: Sequence[Chunk], vectors: Vectors | None) -> None:
        """Write the rows over those of the same keys."""
        async with self._writing(len(chunks)):
            await self._merge(lance_rows.write_chunks(self._columns, chunks, vectors))

    async def replace(self, contents: Sequence[Content]) -> list[int]:
        """Put the chunks in place of the documents', in one commit; say of each how many had no successor."""
        places = {chunk.place for content in contents for chunk in content.chunks}
        async with self._writing(len(places)):
            rows = [lance_rows.write_chunks(self._columns, each.chunks, each.vectors) for each in contents]
            documents = ", ".join(literal(each.document) for each in contents)
            old = await self._places(f"document IN ({documents})")
            gone = old - places
            if not old:
                await self._add(pa.concat_tables(rows))
            else:
                await self._merge(pa.concat_tables([*rows, lance_rows.write_gone(self._columns, gone)]))
            if gone:
                await self._table.delete(f"NOT ({LIVE})")
        without = Counter(place.document for place in gone)
        return [without[each.document] for each in contents]

    async def delete(self, where: str) -> int:
        """Delete the rows, and count them."""
        async with self._writing(0):
            deleted = await self._table.delete(where)
            return int(deleted.num_deleted_rows)

    async def count(self, where: str) -> int:
        """Count the rows."""
        return await self._table.count_rows(where)

    async def nearest(self, vector: Vectors, limit: int, where: str | None) -> list[Scored]:
        """The rows nearest to the vector by cosine, best first."""
        rows = await self._nearest(vector, limit, where, self._probes)
        if where is not None and self._probes and len(rows) < limit:
            # Too few of the filter's rows are in these lists. (Of a range of lists LanceDB reads the most in any case.)
            rows = await self._nearest(vector, limit, where, _ALL_PROBES)
        return _scored(rows, 1.0 - rows["_distance"].to_numpy())

    async def _nearest(self, vector: Vectors, limit: int, where: str | None, probes: int) -> pa.Table:
        query = self._near(vector, limit, probes)
        return await self._rows(query if where is None else query.where(where), [*_wanted(limit), "_distance"])

    async def matching(self, spec: IndexSpec, query: str, limit: int, where: str | None) -> list[Scored]:
        """The rows that score best by BM25."""
        match = MatchQuery(words_of_query(spec.language, query), "words")
        asked = self._table.query().nearest_to_text(match).limit(limit)
        rows = await self._rows(asked if where is None else asked.where(where), [*_wanted(limit), "_score"])
        return _scored(rows, rows["_score"].to_numpy())

    async def read(self, places: Collection[Place], columns: list[str]) -> pa.Table:
        """The live rows at the places."""
        keys = ", ".join(literal(lance_rows.key_of(place)) for place in places)
        return await self._rows(self._table.query().where(f"key IN ({keys}) AND {LIVE}"), columns)

    async def scan(self) -> AsyncIterator[pa.Table]:
        """All live rows as they are now, page by page."""
        columns = [*lance_rows.CHUNK_COLUMNS, "vector"]
        self._scans += 1
        try:
            pages = await self._table.query().where(LIVE).select(columns).to_batches(max_batch_length=_PAGE_ROWS)
            async for page in pages:
                yield pa.Table.from_batches([page])
        finally:
            self._scans -= 1

    async def tidy(self) -> None:
        """Index what was written, join small files, clear old versions, beside writes.

        Raises the driver's error where writes came between; after some times of that it is they who wait.
        """
        began = time.monotonic()
        rows, writes = self._stale_rows, self._stale_writes
        self._tidying = True
        try:
            async with self._lock if self._crowded_out >= _PATIENCE else nullcontext():
                await self._table.optimize(cleanup_older_than=_KEPT)
            await self._index_vectors_if_grown()
            if not self._tried:
                await self._try_index()
        except RuntimeError:
            self._crowded_out += 1
            raise
        finally:
            self._tidying = False
            now = time.monotonic()
            self._rest_until = now + (_REST - 1) * (now - began)
        self._crowded_out = 0
        self._stale_rows -= rows
        self._stale_writes -= writes

    async def _index_fields(self, columns: Iterable[str]) -> None:
        indexed = {column for index in await self._table.list_indices() for column in index.columns}
        for name in columns:
            if name not in indexed and (field := field_of(name)):
                await self._table.create_index(name, config=_FIELD_INDEXES.get(field[1], BTree)())

    async def _index_vectors_if_grown(self) -> None:
        if not self._worth_indexing(await self._table.count_rows()):
            return
        # Chunks that wait for their vectors make no index.
        rows = await self._table.count_rows(ENCODED)
        if self._worth_indexing(rows):
            await self._index_vectors(self._options.kind(rows), rows)

    def _worth_indexing(self, rows: int) -> bool:
        return rows >= _GROWTH * self._made_of and self._options.kind(rows) != "flat"

    async def _index_vectors(self, kind: str, rows: int) -> None:
        """Make the index of the vectors, which has yet to be tried."""
        # Until that is found out, searches look thoroughly.
        self._kind, self._probes, self._tried = kind, _TRIED_PROBES[-1], False
        config = (IvfRq if kind == "ivf_rq" else IvfSq)(distance_type="cosine")
        await self._table.create_index("vector", config=config, name=_VECTOR_INDEX)
        self._made_of = rows

    async def _try_index(self) -> None:
        self._probes = self._options.probes or await self._fewest_probes()
        notes = {_KIND: self._kind, _PROBES: str(self._probes), _MADE_OF: str(self._made_of)}
        await self._table.update_field_metadata({"path": "vector", "metadata": notes})
        self._tried = True
        logger.info("%s: %s of %d vectors, %d probes", self._table.name, self._kind, self._made_of, self._probes)

    async def _fewest_probes(self) -> int:
        """The fewest probes by which vectors of the table find their nearest, as many as the recall asks for."""
        queries = await self._sample()
        exact = [await self._best_ten(self._near(vector, _TRIED_LIMIT, 0).bypass_vector_index()) for vector in queries]
        before = 0
        for probes in _TRIED_PROBES:
            found = [await self._best_ten(self._near(vector, _TRIED_LIMIT, probes)) for vector in queries]
            hits = sum(len(one & other) for one, other in zip(exact, found, strict=True))
            # Where further lists find no more, it is the quantization that keeps it from the rest.
            if hits >= self._options.recall * sum(map(len, exact)) or hits == before:
                return probes
            before = hits
        return _TRIED_PROBES[-1]

    async def _sample(self) -> list[Vectors]:
        """Some vectors from all over the table, where rows may wait for theirs."""
        rows = await self._table.count_rows()
        offsets = list(range(0, rows, max(rows // (4 * _TRIALS), 1)))
        sample = await self._table.take_offsets(offsets).select(["key", "vector"]).to_arrow()
        vectors = [vector for vector in lance_rows.read_vectors(sample).values() if vector.any()]
        return vectors[:: max(len(vectors) // _TRIALS, 1)][:_TRIALS]

    def _near(self, vector: Vectors, limit: int, probes: int) -> AsyncVectorQuery:
        query = self._table.query().nearest_to(vector).column("vector").distance_type("cosine").limit(limit)
        if not probes:
            return query
        probing = query.nprobes(probes)
        refined = _REFINE.get(self._kind)
        return probing.refine_factor(refined) if refined else probing

    async def _best_ten(self, query: AsyncVectorQuery) -> set[str]:
        rows = await self._rows(query, ["key", "_distance"])
        return set(rows["key"].to_pylist()[:10])

    async def _rows(self, query: AsyncQueryBase, columns: list[str]) -> pa.Table:
        timeout = timedelta(
            seconds=deadline.capped(self._options.read_timeout_s, self._options.read_timeout_s).remaining_s()
        )
        return await query.select(columns).to_arrow(timeout=timeout)

    async def _places(self, where: str) -> set[Place]:
        rows = await self._rows(self._table.query().where(where), ["key"])
        return {lance_rows.place_of(key) for key in rows["key"].to_pylist()}

    async def _add(self, rows: pa.Table) -> None:
        if len(rows):
            await self._table.add(rows)

    async def _merge(self, rows: pa.Table) -> None:
        if len(rows):
            merge = self._table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
            # Rows that are to go have no vector, and those that wait for theirs.
            await merge.execute(rows, on_bad_vectors="null")

    async def _fill(self, added: Sequence[pa.Field]) -> None:
        """Fill the columns from the metadata of the rows."""
        asked = self._table.query().where(LIVE).select(["key", "metadata"])
        async for page in await asked.to_batches(max_batch_length=_PAGE_ROWS):
            rows = lance_rows.rewrite_metadata(pa.Table.from_batches([page]), added)
            await self._table.merge_insert("key").when_matched_update_all().execute(rows)

    @asynccontextmanager
    async def _writing(self, rows: int) -> AsyncIterator[None]:
        """Hold the table to write so many rows, and bring them to the disk."""
        async with self._lock:
            yield
            await self._sync()
        self._stale_rows += rows
        self._stale_writes += 1

    async def _sync(self) -> None:
        if self._options.sync:
            self._synced = await asyncio.to_thread(lance_sync.sync, self._folder, self._synced)


def _wanted(limit: int) -> list[str]:
    """The columns of a search: whole chunks of a few rows, which are the hits, else their keys."""
    return lance_rows.CHUNK_COLUMNS if limit <= _FEW else ["key"]


def _scored(rows: pa.Table, scores: NDArray[np.float32]) -> list[Scored]:
    places = [lance_rows.place_of(key) for key in rows["key"].to_pylist()]
    chunks = lance_rows.read_chunks(rows) if "text" in rows.column_names else {}
    return [Scored(place, score, chunks.get(place)) for place, score in zip(places, scores.tolist(), strict=True)]
