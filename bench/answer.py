"""What an answer costs, and how soon it comes: the embedded mesh through Envoy beside a LangChain application.

Both answer the questions of a folder in BEIR's form over the same chunks, with the same encoder and the same language
model, which is elsewhere: `bench/paced_upstream.py` stands for it. Four loads:

- open: questions come at random, whatever goes on, as many as keep N answers open; longer answers, so that 500 are.
- closed: N callers ask again as soon as they have their answers, of 64 tokens. By Little's law they wait N / X seconds
  where X answers a second are all that two cores can do, less what the model takes.
- extractive: the same without a language model, so that nothing but the mesh is waited for; `ragmesh` alone.
- cached: one question again and again, by one caller; `ragmesh` alone.

ROUNDS is the number of rounds. The argument is the folder.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import uvloop

from bench.answer_load import Arrivals, Ask, Heard, Load, arriving, closed, distinct
from bench.answer_subjects import (
    RagmeshCallers,
    Subject,
    chunks_of,
    keep_pace,
    open_langchain,
    open_ragmesh,
    open_upstream,
)
from bench.harness import Benchmark, Reading, rounds, watching
from bench.ingest_peers import LANGCHAIN
from bench.labelled import read_set
from bench.paced_upstream import Pace
from deploy.local import services

SHORT, FAST, BUSY = 64, Pace(0.05, 0.02), Pace(0.05, 0.08)
"""The tokens of a short answer; the model's pace with few streams, and that of one that writes hundreds."""
OPEN = {32: 4.0, 128: 6.0, 500: 20.0}
"""Seconds that an answer takes by the model's pace, for each number of streams that are kept open."""
COUNTS = {1: 5, 32: 64, 128: 128, 500: 500}
"""Questions for each number of callers."""
_USERS = max(COUNTS)
_MANY = 1024
ENGINE = {
    "RAGMESH_GENERATOR_MAX_RUNNING": str(_MANY),
    "RAGMESH_GENERATOR_MAX_WAITING": str(_MANY),
    "RAGMESH_GENERATOR_UPSTREAM_MAX_CONNECTIONS": str(_MANY),
    "RAGMESH_GENERATOR_GATHER_MAX_S": "0.5",
    "RAGMESH_RETRIEVER_MAX_CONCURRENT_RPCS": str(_MANY),
}
"""What is not as by default: that so much is taken on at once, and how long tokens gather among hundreds of streams."""
_OURS, _PEER = "ragmesh", "langchain"
_TIMEOUT_S, _GRACE_S = 60.0, 10.0
_CACHED = 50
_CPU_STREAMS = 32
_OPEN_FILES = 8192
_KINDS = {"": "", "closed_": "closed loop, ", "extractive_": "extractive, "}
_FIGURES = {
    **{f"ttft_{share}_s": f"first token {share}, s" for share in ("p50", "p95", "p99")},
    **{f"total_{share}_s": f"whole answer {share}, s" for share in ("p50", "p95", "p99")},
    "errors": "errors",
    "degraded": "answers that something was left out of",
    "open": "open at once",
    "answers_per_s": "answers/s",
    "cpu_ms": "CPU, ms an answer",
}
_PROCESSES = ("redis", *services.SERVICES, "envoy", _PEER)
WORDS = {
    **{
        f"{kind}{figure}_{streams}": f"{kind_words}{words}, at {streams}"
        for kind, kind_words in _KINDS.items()
        for figure, words in _FIGURES.items()
        for streams in COUNTS
    },
    "answers_per_cpu_s": "answers a CPU second",
    "extractive_answers_per_cpu_s": "extractive, answers a CPU second",
    **{f"cpu_ms_{name}": f"CPU of {name}, ms an answer" for name in _PROCESSES},
    **{f"extractive_cpu_ms_{name}": f"extractive, CPU of {name}, ms an answer" for name in _PROCESSES},
    "cached_ttft_p50_ms": "first token of a cached answer p50, ms",
}


@dataclass(frozen=True, slots=True)
class Questions:
    """A subject, and what it is asked: no question twice."""

    subject: Subject
    left: Iterator[str]
    upstream: str

    async def closed(self, kind: str, tokens: int) -> dict[str, Reading]:
        """The figures of every number of callers, and the CPU time by process at some."""
        await keep_pace(self.upstream, FAST)
        readings: dict[str, Reading] = {}
        for streams, count in COUNTS.items():
            kind_here = kind if streams > 1 or kind == "extractive_" else ""
            with watching(self.subject.pids) as usage:
                load = await closed(self._ask(tokens), self.left, streams, count, _TIMEOUT_S)
            cpu_ms = {name: 1000 * used.cpu_s / max(load.answered, 1) for name, used in usage.items()}
            readings |= _figures(load, kind_here, streams, cpu_ms)
            if streams == _CPU_STREAMS:
                shared = kind.removeprefix("closed_")
                readings |= {f"{shared}cpu_ms_{name}": Reading(spent_ms, "ms") for name, spent_ms in cpu_ms.items()}
                readings[f"{shared}answers_per_cpu_s"] = Reading(1000 / sum(cpu_ms.values()), "answers/s")
        return readings

    async def arriving(self) -> dict[str, Reading]:
        """The figures of every number of streams kept open."""
        await keep_pace(self.upstream, BUSY)
        readings: dict[str, Reading] = {}
        for streams, answer_s in OPEN.items():
            ask = self._ask(round((answer_s - BUSY.first_s) / BUSY.gap_s))
            with watching(self.subject.pids) as usage:
                load = await arriving(ask, self.left, Arrivals(streams, answer_s), _GRACE_S)
            cpu_ms = {name: 1000 * used.cpu_s / max(load.answered, 1) for name, used in usage.items()}
            readings |= _figures(load, "", streams, cpu_ms)
        return readings

    def _ask(self, tokens: int) -> Ask:
        return partial(self.subject.callers.ask, max_tokens=tokens)


def _figures(load: Load, kind: str, streams: int, cpu_ms: Mapping[str, float]) -> dict[str, Reading]:
    for error, count in Counter(heard.error for heard in load.heard if heard.error).items():
        print(f"{kind}{streams}: {count} times {error}", flush=True)
    whole = {f"{kind}cpu_ms_{streams}": Reading(sum(cpu_ms.values()), "ms")}
    return {**load.readings(kind, streams), **whole}


async def measure(folder: Path) -> None:
    """Runs the rounds, prints the table and writes `build/bench/answer.json`."""
    labelled = read_set(folder)
    documents, asked = list(labelled.documents.values()), list(labelled.queries.values())
    benchmark = Benchmark("answer", rounds=rounds(2), warmup_rounds=0, floor=_PEER, words=WORDS)
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in (_OURS, "extractive", _PEER):
            (data / name).mkdir()
        upstream = await stack.enter_async_context(open_upstream(data))
        paced = {**ENGINE, "RAGMESH_GENERATOR_UPSTREAM_URL": upstream}
        ours, mesh = await stack.enter_async_context(open_ragmesh(data / _OURS, documents, _USERS, paced))
        quoting, _ = await stack.enter_async_context(open_ragmesh(data / "extractive", documents, _USERS, ENGINE))
        questions = [Questions(each, distinct(asked), upstream) for each in (ours, quoting)]
        subjects = {_OURS: partial(_ragmesh, *questions)}
        if LANGCHAIN.exists():
            peer = open_langchain(data / _PEER, await chunks_of(mesh), upstream)
            langchain = await stack.enter_async_context(peer)
            subjects[_PEER] = partial(_langchain, Questions(langchain, distinct(asked), upstream))
        else:
            print(f"langchain is left out: nothing in {LANGCHAIN}, where `make bench-answer` installs it")
        await benchmark.run(subjects, timeout_s=_TIMEOUT_S * len(COUNTS) * len(_KINDS))
    print(benchmark.report())
    _aims(benchmark)


async def _ragmesh(paced: Questions, quoting: Questions) -> Mapping[str, Reading]:
    await _warm(paced)
    await _warm(quoting)
    return {
        **await paced.closed("closed_", SHORT),
        **await paced.arriving(),
        **await quoting.closed("extractive_", 0),
        **await _cached(quoting),
    }


async def _langchain(paced: Questions) -> Mapping[str, Reading]:
    await _warm(paced)
    return {**await paced.closed("closed_", SHORT), **await paced.arriving()}


async def _warm(questions: Questions) -> None:
    """Ask a few that do not count: connections are made, code and models are there."""
    load = await closed(partial(questions.subject.callers.ask, max_tokens=1), questions.left, 8, 16, _TIMEOUT_S)
    if errors := [heard.error for heard in load.heard if heard.error]:
        raise RuntimeError(f"{len(errors)} of {len(load.heard)} questions failed: {errors[0]}")


async def _cached(questions: Questions) -> dict[str, Reading]:
    """The first token of a question that one caller asks again; nothing where no cache answers it."""
    callers = questions.subject.callers
    assert isinstance(callers, RagmeshCallers)  # noqa: S101 - of the mesh, which has caches
    question, waits_ms = next(questions.left), list[float]()
    for _ in range(_CACHED):
        heard = Heard()
        answer = await callers.ask(question, 0, heard, cache="CACHE_POLICY_USE")
        if answer.cached:
            waits_ms.append(1000 * (heard.first_s - heard.asked_s))
    return {"cached_ttft_p50_ms": Reading(median(waits_ms), "ms")} if waits_ms else {}


def _aims(benchmark: Benchmark) -> None:
    """Prints what was aimed at beside what was measured."""
    found = {(row.metric, row.subject): row.value for row in benchmark.rows()}
    ours = {metric: value for (metric, subject), value in found.items() if subject == _OURS}
    streams = max(OPEN)
    print(f"{ours[f'open_{streams}']:.0f} open at once, errors: {ours[f'errors_{streams}']:.0f}, aimed at none")
    print(f"first token p95 among them: {ours.get(f'ttft_p95_s_{streams}', 0):.2f} s, aimed at less than 1.2")
    if "cached_ttft_p50_ms" in ours:
        print(f"first token of a cached answer: {ours['cached_ttft_p50_ms']:.1f} ms, aimed at less than 10")
    if theirs := found.get(("answers_per_cpu_s", _PEER)):
        ratio = ours["answers_per_cpu_s"] / theirs
        print(f"answers a CPU second against langchain's: {ratio:.2f}, aimed at 3 or more")


def _allow_open_files() -> None:
    """Five hundred streams hold as many connections here, and the processes started here inherit what is allowed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_OPEN_FILES, most), most))


def main(arguments: Sequence[str]) -> None:
    """Measure with the folder that the arguments name."""
    _allow_open_files()
    uvloop.run(measure(Path(arguments[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
