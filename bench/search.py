"""What a search costs as a collection grows: retriever_svc, the same index called bare, and others' indexes.

`ragmesh` is retriever_svc as a process, called over gRPC with the query's vector, so that no encoder is measured.
`lancedb` is the very same tables, called bare in a process of its own, `milvus-lite` a bare Milvus Lite, up to 100
thousand chunks. `faiss-hnsw` and `faiss-flat` search vectors in memory, the latter exactly. Each query is asked alone,
for p50 and p99, and then by eight callers at once, for the queries a second. An answer has ten chunks with their texts,
FAISS's only their numbers. The filter leaves one chunk in ten. CPU is that of the subject's process for a query, its
caller's included but for `ragmesh`.

SIZES names the sizes, with commas. ROUNDS is the number of rounds. Indexes are kept in build/bench-data.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from bench import search_faiss, search_lance, search_milvus
from bench.harness import Benchmark, Reading, quantile, rounds, watching
from bench.search_load import MODES, TASKS, Load, Task, load, recall
from bench.search_prepare import Prepared, prepare
from bench.search_service import open_service
from bench.search_worker import open_worker

SIZES = [int(size) for size in os.environ.get("SIZES", "10000,100000,1000000").split(",")]
FLOOR = "lancedb"
QUERIES, SLOW_QUERIES = 100, 20
"""Queries of a round, and of one of a subject that takes a hundred milliseconds for each."""
_NAMES = {10_000: "10 thousand", 100_000: "100 thousand", 1_000_000: "1 million"}
_FILLED = {"lance": "ragmesh", "milvus": "milvus-lite", "faiss": "faiss-hnsw"}
_ROUND_TIMEOUT_S = 600.0

SUBJECTS = ("ragmesh", FLOOR, "milvus-lite", "faiss-hnsw", "faiss-flat")


@dataclass(frozen=True, slots=True)
class Subject:
    """How it is asked, the process that works for it, and the ways of searching that it has."""

    ask: Callable[[Task], Awaitable[Load]]
    pid: int
    modes: Sequence[str] = MODES


async def measure() -> None:
    """Runs the rounds of each size, prints the table and writes `build/bench/search.json`."""
    benchmark = Benchmark("search", rounds=rounds(3), floor=FLOOR, words=_words())
    for size in SIZES:
        prepared = await prepare(size, QUERIES)
        async with _subjects(prepared) as subjects:
            for task in TASKS:
                measured = {name: partial(_round, subjects.get(name), task, size, prepared) for name in SUBJECTS}
                await benchmark.run(measured, timeout_s=_ROUND_TIMEOUT_S)
        for name, filled_s in prepared.filled_s.items():
            benchmark.readings[f"filled_s_{size}", _FILLED[name]] = [Reading(filled_s, "s")]
    _fold_memory(benchmark)
    _compare(benchmark)
    print(benchmark.report())


async def _round(subject: Subject | None, task: Task, size: int, prepared: Prepared) -> Mapping[str, Reading]:
    """The figures of one way of searching; none where the subject has not that way, or not that size."""
    if subject is None or task.mode not in subject.modes:
        return {}
    with watching({"it": subject.pid}) as usage:
        loaded = await subject.ask(task)
    readings = {
        f"p50_ms_{task.name}_{size}": Reading(quantile(loaded.times_ms, 0.5), "ms"),
        f"p99_ms_{task.name}_{size}": Reading(quantile(loaded.times_ms, 0.99), "ms"),
        f"qps_{task.name}_{size}": Reading(loaded.per_s, "queries/s"),
        f"cpu_ms_{task.name}_{size}": Reading(usage["it"].cpu_s * 1000 / loaded.asked, "ms"),
        f"peak_mb_{size}": Reading(usage["it"].peak_mb, "MB"),
    }
    if task.mode == "dense":
        exact = prepared.exact[task.filtered][: len(loaded.found)]
        name = "recall_at_10_filtered" if task.filtered else "recall_at_10"
        readings[f"{name}_{size}"] = Reading(recall(loaded.found, exact), "share")
    return readings


@asynccontextmanager
async def _subjects(prepared: Prepared) -> AsyncIterator[dict[str, Subject]]:
    """All that a size has, open."""
    folders = prepared.folders
    openers = {
        FLOOR: partial(search_lance.open_finder, folders["lance"]),
        "faiss-hnsw": partial(search_faiss.open_finder, folders["faiss"], search_faiss.HNSW),
        "faiss-flat": partial(search_faiss.open_finder, folders["faiss"], search_faiss.FLAT),
    }
    if "milvus" in folders:
        openers["milvus-lite"] = partial(search_milvus.open_finder, folders["milvus"])
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(open_service(folders["lance"]))
        subjects = {"ragmesh": Subject(partial(load, service.find, prepared.queries), service.pid)}
        for name, opener in openers.items():
            asked = prepared.queries[:SLOW_QUERIES] if name == "milvus-lite" else prepared.queries
            worker = await stack.enter_async_context(open_worker(opener, asked))
            modes = ("dense",) if name.startswith("faiss") else MODES
            subjects[name] = Subject(worker.load, worker.pid, modes)
        yield subjects


def _compare(benchmark: Benchmark) -> None:
    """What the service adds to the bare call, round by round, and how many times the cost is that of a hundredth."""
    readings = benchmark.readings
    for (metric, subject), own in list(readings.items()):
        if not metric.startswith("p50_ms"):
            continue
        if subject == "ragmesh":
            pairs = zip(own, readings[metric, FLOOR], strict=True)
            readings[metric.replace("p50", "added_p50"), subject] = [
                Reading(mine.value - base.value, "ms") for mine, base in pairs
            ]
        least, most = min(SIZES), max(SIZES)
        if metric.endswith(f"_{most}") and least < most:
            first = readings[metric.replace(str(most), str(least)), subject]
            readings[_growth(metric), subject] = [
                Reading(big.value / small.value, "times") for big, small in zip(own, first, strict=True)
            ]


def _growth(metric: str) -> str:
    return f"growth_{metric.removeprefix('p50_ms_').rpartition('_')[0]}"


def _fold_memory(benchmark: Benchmark) -> None:
    """One figure of memory a size: the most of all ways of searching."""
    for (metric, subject), own in list(benchmark.readings.items()):
        if metric.startswith("peak_mb"):
            benchmark.readings[metric, subject] = [max(own, key=lambda reading: reading.value)]


def _words() -> dict[str, str]:
    """What the document calls the metrics."""
    least, most = (_NAMES.get(size, f"{size:,}") for size in (min(SIZES), max(SIZES)))
    words = {f"growth_{task.name}": f"{_named(task)} p50, {most} over {least}" for task in TASKS}
    for size in SIZES:
        at = _NAMES.get(size, f"{size:,}")
        for task in TASKS:
            words |= {
                f"p50_ms_{task.name}_{size}": f"{_named(task)} p50, ms, {at}",
                f"p99_ms_{task.name}_{size}": f"{_named(task)} p99, ms, {at}",
                f"qps_{task.name}_{size}": f"{_named(task)}, queries/s, {at}",
                f"cpu_ms_{task.name}_{size}": f"{_named(task)}, CPU, ms, {at}",
                f"added_p50_ms_{task.name}_{size}": f"{_named(task)} p50, added to the bare call, ms, {at}",
            }
        words |= {
            f"recall_at_10_{size}": f"recall@10, {at}",
            f"recall_at_10_filtered_{size}": f"recall@10, filtered, {at}",
            f"peak_mb_{size}": f"peak memory, MB, {at}",
            f"filled_s_{size}": f"written and indexed, s, {at}",
        }
    return words


def _named(task: Task) -> str:
    return f"{task.mode}, filtered" if task.filtered else task.mode


if __name__ == "__main__":
    # uvloop forks where asyncio spawns, and LanceDB has threads.
    asyncio.run(measure())
