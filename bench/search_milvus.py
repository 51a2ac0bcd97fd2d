"""Milvus Lite called bare: a table of the same columns and indexes as retriever_svc's, one collection in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from milvus_lite.server_manager import server_manager_instance
from pymilvus import (
    AnnSearchRequest,
    AsyncMilvusClient,
    CollectionSchema,
    DataType,
    Function,
    FunctionType,
    MilvusClient,
    RRFRanker,
)

from bench.search_data import DIMENSION, TEAM, Block, Query
from bench.search_load import TOP_K, Find, Task

_FILE, _TABLE, _BATCH, _CANDIDATES = "milvus.db", "chunks", 2000, 100
_INDEXES = {
    "dense": ("AUTOINDEX", {"metric_type": "COSINE"}),
    "sparse": ("SPARSE_INVERTED_INDEX", {"metric_type": "BM25"}),
    "team": ("INVERTED", {}),
}


async def open_builder(folder: Path) -> Builder:
    """An empty index for the folder."""
    return Builder(folder)


class Builder:
    """Takes the chunks; `close` has them indexed."""

    def __init__(self, folder: Path) -> None:
        self._file = str(folder / _FILE)
        self._client = MilvusClient(self._file)
        self._client.create_collection(_TABLE, schema=_schema())
        for field, (kind, options) in _INDEXES.items():
            params = self._client.prepare_index_params()
            params.add_index(field, index_type=kind, **options)
            self._client.create_index(_TABLE, params)

    async def add(self, block: Block) -> None:
        """Insert the rows."""
        rows = [
            {"id": block.first + place, "text": text, "team": block.teams[place], "dense": block.vectors[place]}
            for place, text in enumerate(block.texts)
        ]
        for first in range(0, len(rows), _BATCH):
            self._client.insert(_TABLE, rows[first : first + _BATCH])

    async def close(self) -> None:
        """Write what was logged to segments, which are searched by index."""
        self._client.flush(_TABLE)
        self._client.close()
        # Milvus Lite runs in this process and holds the file until it is told to let go.
        server_manager_instance.release_server(self._file)


@asynccontextmanager
async def open_finder(folder: Path) -> AsyncIterator[Find]:
    """The table in the folder, loaded."""
    # The asynchronous client does not load a table of Milvus Lite.
    MilvusClient(str(folder / _FILE)).load_collection(_TABLE)
    client = AsyncMilvusClient(str(folder / _FILE))

    async def find(query: Query, task: Task) -> list[int]:
        (hits,) = await _search(client, query, task)
        return [int(hit["id"]) for hit in hits]

    try:
        yield find
    finally:
        await client.close()


async def _search(client: AsyncMilvusClient, query: Query, task: Task) -> Any:
    expression = f'team == "{TEAM}"' if task.filtered else ""
    asked = {"dense": query.vector, "sparse": query.text}
    if task.mode != "hybrid":
        return await client.search(
            _TABLE,
            [asked[task.mode]],
            anns_field=task.mode,
            filter=expression,
            limit=TOP_K,
            output_fields=["text", "team"],
        )
    halves = [
        AnnSearchRequest([value], field, {}, limit=_CANDIDATES, expr=expression) for field, value in asked.items()
    ]
    return await client.hybrid_search(_TABLE, halves, RRFRanker(), limit=TOP_K, output_fields=["text", "team"])


def _schema() -> CollectionSchema:
    schema = MilvusClient.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("team", DataType.VARCHAR, max_length=64)
    params = {"tokenizer": "standard", "filter": ["lowercase"]}
    schema.add_field("text", DataType.VARCHAR, max_length=4096, enable_analyzer=True, analyzer_params=params)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=DIMENSION)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(Function("bm25", FunctionType.BM25, input_field_names=["text"], output_field_names=["sparse"]))
    return schema
