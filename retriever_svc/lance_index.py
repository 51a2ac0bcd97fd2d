"""The index in LanceDB: tables in a folder of this process, one for each collection."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import lancedb
import pyarrow as pa
from lancedb import AsyncConnection, Session

from meshkit.errors import MeshError, Unavailable, map_exceptions
from retriever_svc import lance_rows
from retriever_svc.filtering import Condition
from retriever_svc.index import Chunk, Content, IndexSpec, Place, Scope, Scored, State, Vectors, stored
from retriever_svc.lance_filter import narrowed, where
from retriever_svc.lance_options import LanceOptions
from retriever_svc.lance_registry import Registry, open_registry
from retriever_svc.lance_table import LanceTable
from retriever_svc.upkeep import upkeep

logger = logging.getLogger(__name__)


class LanceIndex:
    """The chunks of all tenants, each collection in a table of its own, and a registry beside them.

    `open_lance_index` makes and closes it. A collection's BM25 counts its own words only, its filters see its own rows
    only, and dropping it is deleting a folder.
    """

    def __init__(self, connection: AsyncConnection, registry: Registry, options: LanceOptions) -> None:
        self._connection = connection
        self._registry = registry
        self._options = options
        # The tables used of late, by name; `_find` adds and takes out.
        self._tables: OrderedDict[str, LanceTable] = OrderedDict()
        # The tables dropped since `tidy` began with one.
        self._dropped: set[str] = set()
        self._opening = asyncio.Lock()

    @property
    def engine(self) -> str:
        return "lance"

    async def check(self) -> bool:
        """Whether the folder is still there."""
        return await asyncio.to_thread(self._options.folder.is_dir)

    async def scopes(self) -> list[Scope]:
        """The scopes in the registry."""
        return self._registry.scopes()

    async def load(self, scope: Scope) -> State | None:
        """The state in the registry."""
        return self._registry.load(scope)

    async def save(self, scope: Scope, state: State) -> None:
        """Write the state to the registry, after the table is made or fitted to it."""
        old, held = self._registry.load(scope), stored(scope, state.chunks)
        with _driver_errors():
            if old is None or (old.spec, old.chunks) != (state.spec, state.chunks):
                await (await self._made(held, state.spec)).fit(state.spec)
            await self._registry.save(scope, state)
            if old and old.chunks == state.chunks:
                await self._drop_other(held, old.spec, state.spec)

    async def forget(self, scope: Scope) -> None:
        """Delete the state from the registry."""
        with _driver_errors():
            await self._registry.forget(scope)

    async def upsert(self, scope: Scope, spec: IndexSpec, chunks: Sequence[Chunk], vectors: Vectors | None) -> None:
        """Write the rows in one commit."""
        with _driver_errors():
            await (await self._made(scope, spec)).upsert(chunks, vectors)

    async def replace(self, scope: Scope, state: State, contents: Sequence[Content]) -> list[int]:
        """In one commit: a search sees the old content or the new, and a crash leaves one of them."""
        with _driver_errors():
            return await (await self._made(scope, state.spec)).replace(contents)

    async def delete(self, scope: Scope, spec: IndexSpec, *conditions: Condition) -> int:
        """Delete the rows in one commit; all of them go with their table."""
        with _driver_errors():
            table = await self._find(scope, spec)
            if table is None:
                return 0
            if conditions:
                return await table.delete(where(*conditions))
            count = await table.count(where())
            await self._drop(lance_rows.table_name(scope, spec))
            return count

    async def count(self, scope: Scope, spec: IndexSpec, *conditions: Condition) -> int:
        """Count the rows."""
        with _driver_errors():
            table = await self._find(scope, spec)
            return await table.count(where(*conditions)) if table else 0

    async def search_dense(
        self, scope: Scope, spec: IndexSpec, vector: Vectors, limit: int, condition: Condition | None
    ) -> list[Scored]:
        """By the vectors' index, where there are enough for one, and those it does not have yet one by one."""
        with _driver_errors():
            table = await self._find(scope, spec)
            return await table.nearest(vector, limit, narrowed(condition)) if table else []

    async def search_sparse(
        self, scope: Scope, spec: IndexSpec, query: str, limit: int, condition: Condition | None
    ) -> list[Scored]:
        """By LanceDB's inverted index."""
        with _driver_errors():
            table = await self._find(scope, spec)
            return await table.matching(spec, query, limit, narrowed(condition)) if table else []

    async def read(self, scope: Scope, spec: IndexSpec, places: Collection[Place]) -> dict[Place, Chunk]:
        """The chunks by their keys."""
        rows = await self._read(scope, spec, places, lance_rows.CHUNK_COLUMNS)
        return lance_rows.read_chunks(rows) if rows else {}

    async def vectors(self, scope: Scope, spec: IndexSpec, places: Collection[Place]) -> dict[Place, Vectors]:
        """The vectors by their keys."""
        rows = await self._read(scope, spec, places, ["key", "vector"])
        return lance_rows.read_vectors(rows) if rows else {}

    async def scan(self, scope: Scope, spec: IndexSpec) -> AsyncIterator[tuple[list[Chunk], Vectors | None]]:
        """All rows as they are when it begins."""
        with _driver_errors():
            table = await self._find(scope, spec)
            if table:
                async for rows in table.scan():
                    for some in lance_rows.parted(rows):
                        yield list(lance_rows.read_chunks(some).values()), lance_rows.stack(some)

    async def tidy(self) -> None:
        """Put in order the tables that are due, one after another."""
        for name, table in list(self._tables.items()):
            if table.due and name in self._tables:
                self._dropped.clear()
                try:
                    await table.tidy()
                except Exception as error:  # noqa: BLE001 - whatever it was, the next round tries again
                    logger.info("%s is put in order later: %s", name, error)
                if name in self._dropped:
                    # What was written to it since.
                    await self._connection.drop_table(name, ignore_missing=True)

    async def _read(
        self, scope: Scope, spec: IndexSpec, places: Collection[Place], columns: list[str]
    ) -> pa.Table | None:
        with _driver_errors():
            table = await self._find(scope, spec) if places else None
            return await table.read(places, columns) if table else None

    async def _made(self, scope: Scope, spec: IndexSpec) -> LanceTable:
        """The table, made if there is none."""
        if table := await self._find(scope, spec):
            return table
        async with self._opening:
            name, columns = lance_rows.table_name(scope, spec), lance_rows.schema(spec)
            made = await self._connection.create_table(name, schema=columns, exist_ok=True)
            table = LanceTable(made, await made.schema(), self._options)
            await table.make_indexes(spec)
            return self._keep(name, table)

    async def _find(self, scope: Scope, spec: IndexSpec) -> LanceTable | None:
        """The table, opened if need be; None where there is none."""
        name = lance_rows.table_name(scope, spec)
        if table := self._tables.get(name):
            self._tables.move_to_end(name)
            return table
        async with self._opening:
            if name not in self._tables:
                try:
                    opened = await self._connection.open_table(name)
                except ValueError:  # no such table
                    return None
                table = LanceTable(opened, await opened.schema(), self._options)
                await table.inspect()
                self._keep(name, table)
            return self._tables[name]

    def _keep(self, name: str, table: LanceTable) -> LanceTable:
        """Keep the table open, and let go of those used longest ago; who searches one holds it himself."""
        free = [other for other, kept in self._tables.items() if not kept.busy]
        for other in free[: max(len(self._tables) + 1 - self._options.max_open_tables, 0)]:
            del self._tables[other]
        self._tables[name] = table
        return table

    async def _drop_other(self, held: Scope, old: IndexSpec, new: IndexSpec) -> None:
        """Drop the table of the old settings where the new ones have another; it is empty."""
        name = lance_rows.table_name(held, old)
        if name != lance_rows.table_name(held, new):
            await self._drop(name)

    async def _drop(self, name: str) -> None:
        self._tables.pop(name, None)
        self._dropped.add(name)
        await self._connection.drop_table(name, ignore_missing=True)


@asynccontextmanager
async def open_lance_index(options: LanceOptions) -> AsyncIterator[LanceIndex]:
    """The index in its folder, made if need be, and kept in order while the body runs.

    Raises OSError where the folder cannot be had: one process at a time may.
    """
    await asyncio.to_thread(options.folder.mkdir, parents=True, exist_ok=True)
    async with open_registry(options.folder / "registry.sqlite") as registry:
        session = Session(index_cache_size_bytes=options.cache_bytes)
        connection = await lancedb.connect_async(options.folder, session=session)
        try:
            index = LanceIndex(connection, registry, options)
            async with upkeep(index.tidy, options.upkeep_interval_s):
                yield index
        finally:
            connection.close()


@contextmanager
def _driver_errors() -> Iterator[None]:
    """Whatever the driver raises means that the index does not answer."""
    with map_exceptions({Exception: _unavailable}):
        yield


def _unavailable(error: Exception) -> MeshError:
    logger.warning("LanceDB: %s: %s", type(error).__name__, error)
    return Unavailable("INDEX_UNAVAILABLE", "the index does not answer")
