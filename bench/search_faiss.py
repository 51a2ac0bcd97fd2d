"""FAISS as a bare peer of dense search: exact (IndexFlatIP) and by a graph (HNSW), in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from bench.search_data import DIMENSION, TEAM, Block, Query
from bench.search_load import TOP_K, Find, Task

FLAT, HNSW = "flat.faiss", "hnsw.faiss"
_M, _EF_CONSTRUCTION, _EF_SEARCH = 24, 80, 128
_TEAM_FILE = "team.npy"


async def open_builder(folder: Path) -> Builder:
    """An empty index for the folder."""
    return Builder(folder)


class Builder:
    """Takes the chunks; `close` writes both indexes to the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._flat = faiss.IndexFlatIP(DIMENSION)
        self._hnsw = faiss.IndexHNSWFlat(DIMENSION, _M, faiss.METRIC_INNER_PRODUCT)
        self._hnsw.hnsw.efConstruction = _EF_CONSTRUCTION
        self._of_team: list[bool] = []

    async def add(self, block: Block) -> None:
        """Index the vectors."""
        self._flat.add(block.vectors)
        self._hnsw.add(block.vectors)
        self._of_team += [team == TEAM for team in block.teams]

    async def close(self) -> None:
        """Write what was built."""
        faiss.write_index(self._flat, str(self._folder / FLAT))
        faiss.write_index(self._hnsw, str(self._folder / HNSW))
        np.save(self._folder / _TEAM_FILE, self._of_team)


@asynccontextmanager
async def open_finder(folder: Path, name: str) -> AsyncIterator[Find]:
    """The index of that file in the folder."""
    index = faiss.read_index(str(folder / name))
    parameters = {filtered: _parameters(folder, name, filtered=filtered) for filtered in (False, True)}

    async def find(query: Query, task: Task) -> list[int]:
        vector = query.vector[None]
        _, numbers = await asyncio.to_thread(index.search, vector, TOP_K, params=parameters[task.filtered])
        return [int(number) for number in numbers[0]]

    yield find


def exact(folder: Path, queries: Sequence[Query], *, filtered: bool) -> NDArray[np.int64]:
    """The numbers [n, TOP_K] of the chunks that are nearest to the queries, best first."""
    index = faiss.read_index(str(folder / FLAT))
    vectors = np.stack([query.vector for query in queries])
    _, numbers = index.search(vectors, TOP_K, params=_parameters(folder, FLAT, filtered=filtered))
    return np.asarray(numbers, dtype=np.int64)


def _parameters(folder: Path, name: str, *, filtered: bool) -> Any:
    chosen = np.flatnonzero(np.load(folder / _TEAM_FILE))
    selector = {"sel": faiss.IDSelectorBatch(chosen)} if filtered else {}
    if name == FLAT:
        return faiss.SearchParameters(**selector)
    return faiss.SearchParametersHNSW(efSearch=_EF_SEARCH, **selector)  # type: ignore[attr-defined]
