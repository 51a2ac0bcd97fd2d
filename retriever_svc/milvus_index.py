"""The index in Milvus: a server or a cluster by its address, or Milvus Lite in a folder of its own."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milvus_lite.server_manager import server_manager_instance
from pymilvus import AsyncMilvusClient, CollectionSchema, MilvusClient, MilvusException

from meshkit import deadline
from meshkit.errors import MeshError, Unavailable, map_exceptions
from retriever_svc import milvus_rows
from retriever_svc.filtering import Condition
from retriever_svc.index import Chunk, Content, IndexSpec, Place, Scope, Scored, State, Vectors
from retriever_svc.locking import ReadersWriterLock
from retriever_svc.milvus_filter import within
from retriever_svc.milvus_rows import Row
from retriever_svc.milvus_tables import (
    CHUNK_INDEXES,
    REGISTRY_INDEXES,
    Indexes,
    chunks_schema,
    make_table,
    registry_schema,
)
from retriever_svc.upkeep import upkeep
from retriever_svc.words import words_of_query

logger = logging.getLogger(__name__)

_REGISTRY = "ragmesh_indexes"
_OURS = "ragmesh_"
# Milvus's own number for the error.
_NOT_LOADED = 101
# Rows that one request names or returns, as many as Milvus takes: no document has more, so that what is left of its
# earlier content goes in one request, whole or not at all.
_PAGE_ROWS = 16_384
# Rows, vectors and all, that one page of a scan has.
_SCAN_ROWS = 1024
# A client that reconnects opens a channel each time, and gRPC gives it the connection that failed, to be tried again in
# up to two minutes: a server that is back would stay lost for as long.
_CHANNEL = {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2000,
}


@dataclass(frozen=True, slots=True)
class MilvusOptions:
    """How to reach Milvus and how long to wait for it; a `uri` without a scheme is a folder for Milvus Lite."""

    uri: str
    token: str = ""
    consistency: str = "Strong"
    read_timeout_s: float = 10.0
    write_timeout_s: float = 60.0
    flush_interval_s: float = 5.0
    max_write_bytes: int = 32 * 1024 * 1024

    @property
    def embedded(self) -> bool:
        """Whether it is Milvus Lite, in this process."""
        return "://" not in self.uri


class MilvusIndex:
    """The chunks of all tenants, one Milvus collection ("table") for each encoder and language, and a registry.

    `open_milvus_index` makes and closes it. Milvus Lite takes one write at a time, and a search beside a flush may
    miss rows: there writes exclude all else. What it has logged is durable, and slow to search until it is flushed.
    """

    def __init__(self, address: str, options: MilvusOptions, client: AsyncMilvusClient) -> None:
        self._address = address
        self._options = options
        self._client = client
        self._lock = ReadersWriterLock()
        # Tables known to be there; nobody deletes one.
        self._tables: set[str] = set()
        # Tables written since they were flushed; writes add, `flush` takes out.
        self._unflushed: set[str] = set()

    @property
    def engine(self) -> str:
        return "milvus-lite" if self._options.embedded else "milvus"

    async def check(self) -> bool:
        """Whether Milvus answers."""
        return _REGISTRY in await self._read(self._client.list_collections)

    async def scopes(self) -> list[Scope]:
        """The scopes in the registry."""
        pages = self._pages(_REGISTRY, "", ["key"])
        return [milvus_rows.scope_of(row["key"]) async for page in pages for row in page]

    async def load(self, scope: Scope) -> State | None:
        """The state in the registry."""
        rows = await self._get(_REGISTRY, [milvus_rows.index_key(scope)], milvus_rows.STATE_FIELDS)
        return milvus_rows.read_state(rows[0]) if rows else None

    async def save(self, scope: Scope, state: State) -> None:
        """Write the state to the registry, after the table for its chunks is made."""
        await self._make(milvus_rows.chunks_table(state.spec), chunks_schema(state.spec), CHUNK_INDEXES)
        await self._upsert(_REGISTRY, [milvus_rows.write_state(scope, state)])

    async def forget(self, scope: Scope) -> None:
        """Delete the state from the registry."""
        await self._delete(_REGISTRY, [milvus_rows.index_key(scope)])

    async def upsert(self, scope: Scope, spec: IndexSpec, chunks: Sequence[Chunk], vectors: Vectors | None) -> None:
        """Write the rows, in requests of bounded size."""
        rows = milvus_rows.write_chunks(scope, spec, chunks, vectors)
        for batch in milvus_rows.batches(rows, self._options.max_write_bytes):
            await self._upsert(milvus_rows.chunks_table(spec), batch)

    async def replace(self, scope: Scope, state: State, contents: Sequence[Content]) -> list[int]:
        """One document after another."""
        return [await self._replace(scope, state, content) for content in contents]

    async def _replace(self, scope: Scope, state: State, content: Content) -> int:
        """Write, then delete from the next ordinal on; to look for that one is quicker than to look through all."""
        await self.upsert(scope, state.spec, content.chunks, content.vectors)
        first = Place(content.document, len(content.chunks))
        if not state.gaps and not await self.read(scope, state.spec, [first]):
            return 0
        return await self.delete(scope, state.spec, *milvus_rows.from_place(first))

    async def delete(self, scope: Scope, spec: IndexSpec, *conditions: Condition) -> int:
        """Delete by keys, page by page: a deletion by filter does not say how many it deleted."""
        table, expression, deleted = milvus_rows.chunks_table(spec), within(scope, *conditions), 0
        while rows := await self._query(table, expression, "key", limit=_PAGE_ROWS):
            await self._delete(table, [row["key"] for row in rows])
            deleted += len(rows)
        return deleted

    async def count(self, scope: Scope, spec: IndexSpec, *conditions: Condition) -> int:
        """Count the rows."""
        rows = await self._query(milvus_rows.chunks_table(spec), within(scope, *conditions), "count(*)")
        return int(rows[0]["count(*)"])

    async def search_dense(
        self, scope: Scope, spec: IndexSpec, vector: Vectors, limit: int, condition: Condition | None
    ) -> list[Scored]:
        """By the vectors' index."""
        hits = await self._search(spec, "dense", vector, limit, within(scope, condition, encoded=True))
        return [Scored(milvus_rows.place_of(hit["key"]), float(hit["distance"])) for hit in hits]

    async def search_sparse(
        self, scope: Scope, spec: IndexSpec, query: str, limit: int, condition: Condition | None
    ) -> list[Scored]:
        """By Milvus's BM25 function."""
        words, expression = milvus_rows.fitting(words_of_query(spec.language, query)), within(scope, condition)
        hits = await self._search(spec, "sparse", words, limit, expression)
        # Milvus Lite gives scores as negative distances, a server as they are; none is below zero.
        return [Scored(milvus_rows.place_of(hit["key"]), abs(float(hit["distance"]))) for hit in hits]

    async def read(self, scope: Scope, spec: IndexSpec, places: Collection[Place]) -> dict[Place, Chunk]:
        """The chunks by their keys."""
        rows = await self._rows(scope, spec, places, milvus_rows.CHUNK_FIELDS)
        return {milvus_rows.place_of(row["key"]): milvus_rows.read_chunk(row) for row in rows}

    async def vectors(self, scope: Scope, spec: IndexSpec, places: Collection[Place]) -> dict[Place, Vectors]:
        """The vectors by their keys."""
        rows = await self._rows(scope, spec, places, milvus_rows.VECTOR_FIELDS)
        encoded = (row for row in rows if milvus_rows.is_encoded(row))
        return {milvus_rows.place_of(row["key"]): milvus_rows.read_vector(row) for row in encoded}

    async def scan(self, scope: Scope, spec: IndexSpec) -> AsyncIterator[tuple[list[Chunk], Vectors | None]]:
        """The rows in the order of their keys."""
        fields = [*milvus_rows.CHUNK_FIELDS, *milvus_rows.VECTOR_FIELDS]
        async for page in self._pages(milvus_rows.chunks_table(spec), within(scope), fields):
            for some in milvus_rows.read_page(page):
                yield some

    async def flush(self) -> None:
        """Let Milvus Lite write what it has logged to segments, which it searches by index."""
        while self._unflushed:
            await self._write(self._client.flush, self._unflushed.pop())

    async def load_tables(self) -> None:
        """Make the registry if there is none, and load all tables: Milvus Lite forgets which were."""
        await self._make(_REGISTRY, registry_schema(), REGISTRY_INDEXES)
        for table in await self._read(self._client.list_collections):
            if table.startswith(_OURS):
                await self._write(self._client.load_collection, table)
                self._unflushed.add(table)

    async def _search(
        self, spec: IndexSpec, field: str, query: Vectors | str, limit: int, expression: str
    ) -> list[Row]:
        (hits,) = await self._ask(
            self._client.search,
            milvus_rows.chunks_table(spec),
            data=[query],
            anns_field=field,
            filter=expression,
            limit=limit,
            output_fields=["ordinal"],  # none would mean all
            **self._consistently,
        )
        return list(hits)

    async def _rows(self, scope: Scope, spec: IndexSpec, places: Collection[Place], fields: list[str]) -> list[Row]:
        keys = [milvus_rows.chunk_key(scope, place) for place in places]
        return await self._get(milvus_rows.chunks_table(spec), keys, fields) if keys else []

    async def _get(self, table: str, keys: list[str], fields: list[str]) -> list[Row]:
        got = await self._ask(self._client.get, table, ids=keys, output_fields=["key", *fields], **self._consistently)
        return list(got)

    async def _query(self, table: str, expression: str, field: str, **limit: int) -> list[Row]:
        query = {"filter": expression, "output_fields": [field], **limit, **self._consistently}
        return list(await self._ask(self._client.query, table, **query))

    async def _pages(self, table: str, expression: str, fields: list[str]) -> AsyncIterator[list[Row]]:
        """The rows page by page, by the blocking client: the asynchronous one has no pages."""
        with _driver_errors():
            client = await asyncio.to_thread(MilvusClient, self._address, token=self._options.token)
            try:
                pages = await asyncio.to_thread(
                    client.query_iterator, table, _SCAN_ROWS, filter=expression, output_fields=fields
                )
                while rows := list(await asyncio.to_thread(pages.next)):
                    yield rows
            finally:
                await asyncio.to_thread(client.close)

    async def _upsert(self, table: str, rows: Sequence[Row]) -> None:
        await self._write(self._client.upsert, table, list(rows))
        self._unflushed.add(table)

    async def _delete(self, table: str, keys: list[str]) -> None:
        await self._write(self._client.delete, table, ids=keys)
        self._unflushed.add(table)

    async def _make(self, table: str, schema: CollectionSchema, indexes: Indexes) -> None:
        if table in self._tables:
            return
        if not await self._read(self._client.has_collection, table):
            address, token = self._address, self._options.token
            await self._write(asyncio.to_thread, make_table, address, token, table, schema, indexes)
        self._tables.add(table)

    @property
    def _consistently(self) -> dict[str, str]:
        return {"consistency_level": self._options.consistency}

    async def _ask(self, call: Any, table: str, **kwargs: Any) -> Any:
        """Read the table, loading it where it is not: Milvus Lite forgets which were when its server starts again."""
        try:
            return await self._read(call, table, **kwargs)
        except _NotLoadedError:
            await self._read(self._client.load_collection, table)
            return await self._read(call, table, **kwargs)

    async def _read(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        timeout = deadline.capped(self._options.read_timeout_s, self._options.read_timeout_s).remaining_s()
        with _driver_errors():
            async with self._turn(self._lock.reading()):
                return await call(*args, timeout=timeout, **kwargs)

    async def _write(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        with _driver_errors():
            async with self._turn(self._lock.writing()):
                return await call(*args, timeout=self._options.write_timeout_s, **kwargs)

    def _turn(self, held: AbstractAsyncContextManager[None]) -> AbstractAsyncContextManager[None]:
        return held if self._options.embedded else nullcontext()


@asynccontextmanager
async def open_milvus_index(options: MilvusOptions) -> AsyncIterator[MilvusIndex]:
    """The index, connected and its tables loaded.

    Raises Unavailable where Milvus does not answer, OSError where the folder of Milvus Lite cannot be had.
    """
    # pymilvus prints every failed call with its traceback; what matters of it is logged here.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    async with _address(options) as address:
        client = AsyncMilvusClient(
            address, token=options.token, timeout=options.read_timeout_s, dedicated=True, grpc_options=_CHANNEL
        )
        try:
            index = MilvusIndex(address, options, client)
            await index.load_tables()
            # A server flushes by itself.
            async with upkeep(index.flush, options.flush_interval_s) if options.embedded else nullcontext():
                yield index
        finally:
            await client.close()


@asynccontextmanager
async def _address(options: MilvusOptions) -> AsyncIterator[str]:
    """Where Milvus listens: for Milvus Lite on a free port of the loopback, in threads of this process."""
    if not options.embedded:
        yield options.uri
        return
    folder = Path(options.uri)
    await asyncio.to_thread(folder.parent.mkdir, parents=True, exist_ok=True)
    address = await asyncio.to_thread(server_manager_instance.start_and_get_uri, str(folder))
    if address is None:
        raise OSError(f"cannot open the index in {folder}: another process has it open, or it is not one")
    try:
        yield address
    finally:
        await asyncio.to_thread(server_manager_instance.release_server, str(folder))


@contextmanager
def _driver_errors() -> Iterator[None]:
    """Whatever the driver raises, its own errors and gRPC's, means that the index does not answer."""
    with map_exceptions({Exception: _unavailable}):
        yield


class _NotLoadedError(Unavailable):
    """The table is there, but not loaded."""


def _unavailable(error: Exception) -> MeshError:
    if isinstance(error, MilvusException) and error.code == _NOT_LOADED:
        return _NotLoadedError("INDEX_UNAVAILABLE", "the index is being loaded")
    logger.warning("Milvus: %s: %s", type(error).__name__, error)
    return Unavailable("INDEX_UNAVAILABLE", "the index does not answer")
