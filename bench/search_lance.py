"""LanceDB as retriever_svc keeps it: written by its own index, and searched bare, with the same tables and probes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import lancedb
import pyarrow as pa
from lancedb import AsyncTable
from lancedb.query import AsyncStandardQuery, MatchQuery

from bench.search_data import CHUNKS_OF_A_DOCUMENT, DIMENSION, TEAM, Block, Query
from bench.search_load import TOP_K, Find, Task
from retriever_svc import lance_rows
from retriever_svc.filtering import FieldType, parse
from retriever_svc.index import Chunk, IndexSpec, Place, Scope, State
from retriever_svc.lance_filter import narrowed
from retriever_svc.lance_index import LanceIndex, open_lance_index
from retriever_svc.lance_options import LanceOptions

SCOPE = Scope("local", "bench")
SPEC = IndexSpec("bench@1", DIMENSION, fields={"team": FieldType.TEXT, "year": FieldType.NUMBER})
FILTER = f'team = "{TEAM}"'
_CANDIDATES = 100
_COLUMNS = ["key", "text", "title", "uri", "page", "metadata"]


async def open_builder(folder: Path) -> Builder:
    """An empty collection in the folder."""
    stack = AsyncExitStack()
    # Put in order once, at the end.
    index = await stack.enter_async_context(open_lance_index(LanceOptions(folder, upkeep_interval_s=3600.0)))
    await index.save(SCOPE, State(SPEC, 1))
    return Builder(index, stack)


class Builder:
    """Takes the chunks of a collection of retriever_svc's own index; `close` has them indexed."""

    def __init__(self, index: LanceIndex, stack: AsyncExitStack) -> None:
        self._index = index
        self._stack = stack

    async def add(self, block: Block) -> None:
        """Write the chunks in one commit, where the service makes one for each document."""
        await self._index.upsert(SCOPE, SPEC, _chunks(block), block.vectors)

    async def close(self) -> None:
        """Index what was written, and let go of the folder."""
        await self._index.tidy()
        await self._stack.aclose()


@asynccontextmanager
async def open_finder(folder: Path) -> AsyncIterator[Find]:
    """The collection's table, opened without retriever_svc."""
    async with AsyncExitStack() as stack:
        connection = await lancedb.connect_async(folder)
        stack.callback(connection.close)
        table = await connection.open_table(lance_rows.table_name(SCOPE, SPEC))
        notes = (await table.schema()).field("vector").metadata or {}
        (words,) = [index.columns[0] for index in await table.list_indices() if index.index_type == "FTS"]
        yield _Bare(table, words, int(notes.get(b"ragmesh.lists_read", 0))).find


def number_of(place: Place) -> int:
    """The number of the chunk at the place."""
    return int(place.document.removeprefix("doc-")) * CHUNKS_OF_A_DOCUMENT + place.ordinal


class _Bare:
    """The calls that somebody would make who had the table and no service before it.

    `words` is the column that BM25 searches, `probes` how many lists of the vectors' index a search reads, 0 for none.
    """

    def __init__(self, table: AsyncTable, words: str, probes: int) -> None:
        self._table = table
        self._words = words
        self._probes = probes

    async def find(self, query: Query, task: Task) -> list[int]:
        """One call; for a hybrid search one for each half, fused, and one for the chunks."""
        where = narrowed(parse(FILTER, SPEC.fields)) if task.filtered else None
        if task.mode == "dense":
            return _numbers(await _rows(self._nearest(query, TOP_K), where, [*_COLUMNS, "_distance"]))
        if task.mode == "sparse":
            return _numbers(await _rows(self._matching(query, TOP_K), where, [*_COLUMNS, "_score"]))
        dense, sparse = await asyncio.gather(
            _rows(self._nearest(query, _CANDIDATES), where, ["_distance"]),
            _rows(self._matching(query, _CANDIDATES), where, ["_score"]),
        )
        return await self._read(_fused(dense, sparse))

    def _nearest(self, query: Query, limit: int) -> AsyncStandardQuery:
        asked = self._table.query().nearest_to(query.vector).column("vector").distance_type("cosine").limit(limit)
        if not self._probes:
            return asked
        return asked.nprobes(self._probes)

    def _matching(self, query: Query, limit: int) -> AsyncStandardQuery:
        return self._table.query().nearest_to_text(MatchQuery(query.text, self._words)).limit(limit)

    async def _read(self, rows: Sequence[int]) -> list[int]:
        """The numbers of the chunks of those rows, read with their texts, in the order of the rows."""
        read = await self._table.take_row_ids(list(rows)).select(_COLUMNS).with_row_id().to_arrow()
        numbers = dict(zip(read["_rowid"].to_pylist(), _numbers(read), strict=True))
        return [numbers[row] for row in rows]


async def _rows(query: AsyncStandardQuery, where: str | None, columns: list[str]) -> pa.Table:
    asked = query if where is None else query.where(where)
    return await asked.with_row_id().select(columns).to_arrow()


def _fused(*halves: pa.Table) -> list[int]:
    """The rows that come first by reciprocal rank."""
    scores: Counter[int] = Counter()
    for half in halves:
        scores.update({row: 1 / (60 + rank) for rank, row in enumerate(half["_rowid"].to_pylist(), start=1)})
    return [row for row, _ in scores.most_common(TOP_K)]


def _numbers(rows: pa.Table) -> list[int]:
    return [number_of(lance_rows.place_of(key)) for key in rows["key"].to_pylist()]


def _chunks(block: Block) -> list[Chunk]:
    return [
        Chunk(
            Place(f"doc-{number // CHUNKS_OF_A_DOCUMENT}", number % CHUNKS_OF_A_DOCUMENT),
            text,
            title="A title",
            uri="bench.md",
            metadata={"team": team, "year": year},
        )
        for number, (text, team, year) in enumerate(
            zip(block.texts, block.teams, block.years, strict=True), block.first
        )
    ]
