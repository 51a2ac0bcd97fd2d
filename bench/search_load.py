"""Sends queries to whatever searches, one by one and side by side, and tells how long they took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bench.search_data import Query

TOP_K, CALLERS = 10, 8
MODES = ("dense", "sparse", "hybrid")


@dataclass(frozen=True, slots=True)
class Task:
    """A way to search: one of MODES, through all chunks or those of one team."""

    mode: str
    filtered: bool

    @property
    def name(self) -> str:
        """As metrics have it."""
        return f"{self.mode}_filtered" if self.filtered else self.mode


TASKS = [Task(mode, filtered) for mode in MODES for filtered in (False, True)]

Find = Callable[[Query, Task], Awaitable[list[int]]]
"""The numbers of the TOP_K chunks that answer a query best."""


@dataclass(frozen=True, slots=True)
class Load:
    """How long each query took when asked alone, what it found, and how many a second were answered to CALLERS."""

    times_ms: list[float]
    found: list[list[int]]
    per_s: float

    @property
    def asked(self) -> int:
        """How often it was asked in all."""
        return 2 * len(self.times_ms)


async def load(find: Find, queries: Sequence[Query], task: Task) -> Load:
    """Asks all queries one after the other, then again as CALLERS who each wait for their answers."""
    times_ms, found = [], []
    for query in queries:
        began = time.perf_counter()
        found.append(await find(query, task))
        times_ms.append((time.perf_counter() - began) * 1000)
    waiting = iter(queries)

    async def call() -> None:
        for query in waiting:
            await find(query, task)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(call())
    return Load(times_ms, found, len(queries) / (time.perf_counter() - began))


def recall(found: Sequence[Sequence[int]], exact: Sequence[Sequence[int]]) -> float:
    """The share of the exact answers that were found."""
    hits = sum(len(set(mine) & set(true)) for mine, true in zip(found, exact, strict=True))
    return hits / sum(len(true) for true in exact)
