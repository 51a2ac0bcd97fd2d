"""What taking documents in costs: ragmesh, the same work done by a LangChain script, and embedder_svc's own bulk rate.

Each round takes an even sample of the given files in. `ragmesh` is a folder job of ingest_svc with embedder_svc,
retriever_svc and Redis as the local mesh runs them, everything empty at first, from the start of the job to its end;
the same job once more is the share of an unchanged folder. `langchain` is `bench/peers/langchain_ingest.py`, from the
first file to the last row. `embedder` is embedder_svc alone, without its cache, given the chunks that ragmesh made in
one stream of batches as ingest_svc bounds them: the floor of the ratios. Rates count what a subject could read.

Then one long job of many documents made of the given ones, beside which new documents are uploaded: how soon each is
found by its words, whether ever by half, and the memory of ingest_svc from the first documents to the last.

ROUNDS is the number of rounds, DOCUMENTS the files of a round, BACKLOG the documents of the long job (0 for none).
The arguments are the folders with the files.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import uvloop

from bench.harness import Benchmark, Reading, rounds
from bench.ingest_corpus import copied, files_of, sampled, varied
from bench.ingest_fresh import Fresh, upload_each
from bench.ingest_peers import LANGCHAIN, embed, run_langchain
from bench.ingest_served import PARSERS, PROCESSES, READY, Run, Served, open_served, path_of
from bench.ingest_watch import Watch
from ingest_svc.chunking import Chunk
from ingest_svc.pipeline import with_context
from ragmesh.ingest.v1 import documents_pb2

DOCUMENTS, BACKLOG, POINTS = 120, 1000, 10
_INTERVAL_S = 5.0
_TIMEOUT_S = 3600.0
_OURS, _PEER, _FLOOR = "ragmesh", "langchain", "embedder"
_STAGES = ("parse", "chunk", "embed", "index")
_PARTS = (*PROCESSES, PARSERS)
WORDS = {
    "documents_per_s": "documents/s",
    "mb_per_s": "MB/s",
    "chunks_per_s": "chunks/s",
    "cpu_ms": "CPU, ms a document",
    "peak_mb": "peak memory, MB",
    "peak_proportional_mb": "the same, shared pages counted once, MB",
    "documents_read": "documents read",
    "documents_read_by_both": "of them read by both",
    "chunks": "chunks",
    **{f"{name}_peak_mb": f"peak memory of {name}, MB" for name in _PARTS},
    **{f"{stage}_share": f"share of {stage}, %" for stage in (*_STAGES, "embed and index")},
    **{f"{name}_cpu_ms": f"CPU of {name}, ms a document" for name in _PARTS},
    "again_share": "the unchanged folder again, % of the first time",
    "fresh": "documents uploaded beside the long job",
    "fresh_words_s": "found by its words after, s, median",
    "fresh_words_worst_s": "found by its words after, s, worst",
    "fresh_vectors_s": "ready after, s, median",
    "fresh_by_half": "seen by half",
    "backlog_documents_per_s": "documents/s of the long job",
    "backlog_peak_mb": "peak memory in the long job, MB",
}


@dataclass
class Sample:
    """The files of a round in a folder, and what became of them."""

    folder: Path
    sizes: Mapping[str, int]
    read: dict[str, set[str]] = field(default_factory=dict)
    texts: list[tuple[Chunk, str]] = field(default_factory=list)
    """Ragmesh's chunks, document by document, with what is encoded of each."""

    def rates(self, subject: str, chunks: int, wall_s: float, cpu_s: float, watch: Watch) -> dict[str, Reading]:
        """The figures that all subjects have."""
        read = self.read[subject]
        size_mb = sum(self.sizes[name] for name in read) / 1e6
        return {
            "documents_per_s": Reading(len(read) / wall_s, "documents/s"),
            "mb_per_s": Reading(size_mb / wall_s, "MB/s"),
            "chunks_per_s": Reading(chunks / wall_s, "chunks/s"),
            "cpu_ms": Reading(1000 * cpu_s / len(read), "ms"),
            "peak_mb": Reading(watch.peak_mb(), "MB"),
            "peak_proportional_mb": Reading(max(watch.proportional_mb), "MB"),
            "chunks": Reading(chunks, "chunks"),
        }


async def measure(folders: Sequence[Path], documents: int, backlog: int) -> None:
    """Runs the rounds and the long job, prints the table and writes `build/bench/ingest.json`."""
    files = files_of(folders)
    benchmark = Benchmark("ingest", rounds=rounds(2), warmup_rounds=0, floor=_FLOOR, words=dict(WORDS))
    with tempfile.TemporaryDirectory() as name:
        chosen = sampled(files, documents)
        sample = Sample(
            copied(chosen, Path(name) / "sample"), {name: path.stat().st_size for name, path in chosen.items()}
        )
        subjects = {_OURS: partial(_ragmesh, sample), _PEER: partial(_langchain, sample)}
        if not LANGCHAIN.exists():
            print(f"langchain is left out: nothing in {LANGCHAIN}, where `make bench-ingest` installs it")
            del subjects[_PEER]
        await benchmark.run({**subjects, _FLOOR: partial(_embedder, sample)}, timeout_s=_TIMEOUT_S)
        _count_read(benchmark, sample)
        if backlog:
            await _long_job(benchmark, varied(files, backlog, Path(name) / "backlog"))
    print(benchmark.report())
    _aims(benchmark)


async def _ragmesh(sample: Sample) -> Mapping[str, Reading]:
    with tempfile.TemporaryDirectory() as data:
        async with open_served(Path(data), sample.folder) as served:
            run = await served.ingest(sample.folder)
            stages = await _outcome(served, sample)
            again = await served.ingest(sample.folder)
    chunks, documents = len(sample.texts), len(sample.read[_OURS])
    whole_s = sum(stages.values())
    return {
        **sample.rates(_OURS, chunks, run.wall_s, run.watch.cpu_s(), run.watch),
        **{f"{name}_peak_mb": Reading(run.watch.peak_mb(name), "MB") for name in _PARTS},
        **{f"{stage}_share": Reading(100 * stages[stage] / whole_s, "%") for stage in _STAGES},
        **{f"{name}_cpu_ms": Reading(1000 * run.watch.cpu_s(name) / documents, "ms") for name in _PARTS},
        "again_share": Reading(100 * again.wall_s / run.wall_s, "%"),
    }


async def _outcome(served: Served, sample: Sample) -> dict[str, float]:
    """Keep what was read and its chunks; the seconds of each stage, of all documents together."""
    stages = dict.fromkeys(_STAGES, 0.0)
    ready: dict[str, documents_pb2.Document] = {}
    async for document in served.documents():
        if document.state == READY:
            ready[path_of(document, sample.folder)] = document
        for timing in document.timings.timings:
            stages[timing.stage] += timing.duration.ToTimedelta().total_seconds()
    sample.read[_OURS] = sample.read[_FLOOR] = set(ready)
    sample.texts = [
        (chunk, with_context(chunk, document.title))
        for document in ready.values()
        async for chunk in served.chunks(document.name)
    ]
    return stages


async def _langchain(sample: Sample) -> Mapping[str, Reading]:
    answer = await run_langchain(sample.folder)
    sample.read[_PEER] = set(answer.read)
    whole_s = sum(answer.stages_s.values())
    return {
        **sample.rates(_PEER, answer.chunks, answer.wall_s, answer.cpu_s, answer.watch),
        **{f"{stage}_share": Reading(100 * seconds / whole_s, "%") for stage, seconds in answer.stages_s.items()},
    }


async def _embedder(sample: Sample) -> Mapping[str, Reading]:
    wall_s, watch = await embed(sample.texts)
    return sample.rates(_FLOOR, len(sample.texts), wall_s, watch.cpu_s(), watch)


def _count_read(benchmark: Benchmark, sample: Sample) -> None:
    by_both = set.intersection(*sample.read.values())
    for subject, read in sample.read.items():
        if subject != _FLOOR:
            _add(benchmark, subject, "documents_read", len(read), "documents")
            _add(benchmark, subject, "documents_read_by_both", len(by_both), "documents")
            unread = sorted(set(sample.sizes) - read)
            print(f"{subject} read {len(read)} of {len(sample.sizes)}, not: {', '.join(unread) or 'none'}")


async def _long_job(benchmark: Benchmark, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as data:
        async with open_served(Path(data), folder) as served, asyncio.TaskGroup() as group:
            ended = asyncio.Event()
            uploads = group.create_task(upload_each(served, _INTERVAL_S, ended))
            run = await served.ingest(folder)
            ended.set()
    _add_long_job(benchmark, run)
    _add_fresh(benchmark, uploads.result())


def _add_long_job(benchmark: Benchmark, run: Run) -> None:
    _add(benchmark, _OURS, "backlog_documents_per_s", run.counts.ready / run.wall_s, "documents/s")
    _add(benchmark, _OURS, "backlog_peak_mb", run.watch.peak_mb(), "MB")
    for name in ("ingest", PARSERS):
        _add_course(benchmark, run.watch, name)


def _add_course(benchmark: Benchmark, watch: Watch, name: str) -> None:
    for documents, held_mb in watch.course(name, POINTS):
        metric = f"{name}_mb_{documents}"
        benchmark.words = {**benchmark.words, metric: f"memory of {name} up to document {documents:,}, MB"}
        _add(benchmark, _OURS, metric, held_mb, "MB")


def _add_fresh(benchmark: Benchmark, uploads: Sequence[Fresh]) -> None:
    words_s = [fresh.words_s for fresh in uploads if fresh.words_s is not None]
    if len(words_s) < len(uploads):
        raise RuntimeError(f"{len(uploads) - len(words_s)} new documents were ready and never found by their words")
    _add(benchmark, _OURS, "fresh", len(uploads), "documents")
    _add(benchmark, _OURS, "fresh_words_s", median(words_s), "s")
    _add(benchmark, _OURS, "fresh_words_worst_s", max(words_s), "s")
    _add(benchmark, _OURS, "fresh_vectors_s", median(fresh.vectors_s for fresh in uploads), "s")
    _add(benchmark, _OURS, "fresh_by_half", sum(fresh.seen_by_half for fresh in uploads), "documents")


def _add(benchmark: Benchmark, subject: str, metric: str, value: float, unit: str) -> None:
    benchmark.readings[metric, subject].append(Reading(value, unit))


def _aims(benchmark: Benchmark) -> None:
    """Prints what was aimed at beside what was measured."""
    found = {(row.metric, row.subject): row.value for row in benchmark.rows()}
    ours = {metric: value for (metric, subject), value in found.items() if subject == _OURS}
    rate = ours["chunks_per_s"] / found["chunks_per_s", _FLOOR]
    cpu = found["cpu_ms", _FLOOR] / ours["cpu_ms"]
    print(f"chunks/s against the embedder's: {rate:.2f}, aimed at 0.85 or more; by CPU time alone {cpu:.2f}")
    print(f"the unchanged folder again: {ours['again_share']:.1f} % of the first time, aimed at less than 5")
    for metric, aim in (("documents_per_s", "3 or more"), ("peak_mb", "0.5 or less")):
        if (theirs := found.get((metric, _PEER))) is not None:
            print(f"{metric} against langchain's: {ours[metric] / theirs:.2f}, aimed at {aim}")
    if "fresh" in ours:
        print(f"found by its words at worst after {ours['fresh_words_worst_s']:.2f} s, aimed at 2 or less")
        print(f"seen by half: {ours['fresh_by_half']:.0f}, aimed at none")
        course = [value for metric, value in ours.items() if metric.startswith("ingest_mb_")]
        print(f"memory of ingest_svc, last tenth against the first: {course[-1] / course[0]:.2f}, aimed at 1")


if __name__ == "__main__":
    uvloop.run(
        measure(
            [Path(folder).resolve() for folder in sys.argv[1:]],
            int(os.environ.get("DOCUMENTS", DOCUMENTS)),
            int(os.environ.get("BACKLOG", BACKLOG)),
        )
    )
