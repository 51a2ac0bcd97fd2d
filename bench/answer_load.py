"""Questions asked at once, by callers who wait for their answers and by ones who come whatever goes on."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean

from bench.harness import Reading, quantile

_SEED = 0
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass
class Heard:
    """One question: when it was asked, its first token came and its answer ended, in seconds of one clock."""

    asked_s: float = field(default_factory=time.perf_counter)
    first_s: float = 0.0
    ended_s: float = 0.0
    error: str = ""
    degraded: bool = False
    """Whether the answer says that something was left out."""

    def token(self) -> None:
        """A piece of the text has come."""
        self.first_s = self.first_s or time.perf_counter()

    def end(self) -> None:
        """The answer has come to its end; one without a token counts from here."""
        self.ended_s = time.perf_counter()
        self.first_s = self.first_s or self.ended_s


Ask = Callable[[str, int, Heard], Awaitable[object]]
"""Asks a question as one of the callers, by number, and hears the whole answer; raises what goes wrong."""


@dataclass
class Load:
    """What a load came to."""

    heard: list[Heard] = field(default_factory=list)
    wall_s: float = 0.0
    open_streams: float = 1.0
    """How many answers were under way at once, on average over the questions that count."""
    counted: slice = field(default_factory=lambda: slice(None))
    """Which questions count for the figures; errors count in all."""

    @property
    def answered(self) -> int:
        """The questions that were answered."""
        return sum(not heard.error for heard in self.heard)

    def readings(self, kind: str, streams: int) -> dict[str, Reading]:
        """The figures, with the load's kind before each name, if it has one, and the number of streams behind it.

        Latencies are those of the questions that count and were answered.
        """
        good = [heard for heard in self.heard[self.counted] if not heard.error]
        waits = {
            "ttft": [heard.first_s - heard.asked_s for heard in good],
            "total": [heard.ended_s - heard.asked_s for heard in good],
        }
        readings = {
            f"{wait}_{share_name}_s": Reading(quantile(seconds, share), "s")
            for wait, seconds in waits.items()
            for share_name, share in _SHARES.items()
            if seconds
        }
        readings["errors"] = Reading(len(self.heard) - self.answered, "answers")
        readings["degraded"] = Reading(sum(heard.degraded for heard in good), "answers")
        readings["open"] = Reading(self.open_streams, "answers")
        readings["answers_per_s"] = Reading(self.answered / self.wall_s, "answers/s")
        return {f"{kind}{name}_{streams}": reading for name, reading in readings.items()}


async def closed(ask: Ask, questions: Iterator[str], callers: int, count: int, timeout_s: float) -> Load:
    """So many callers ask `count` questions, each its next when it has its answer; what takes too long is an error."""
    load = Load(open_streams=callers)
    left = islice(questions, count)
    began_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for caller in range(callers):
            group.create_task(_one_after_the_other(ask, left, caller, load, timeout_s))
    load.wall_s = time.perf_counter() - began_s
    return load


async def _one_after_the_other(ask: Ask, left: Iterator[str], caller: int, load: Load, timeout_s: float) -> None:
    for question in left:
        await _hear(ask, question, caller, load, timeout_s)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Questions that come at random, as many as keep `streams` open where each answer takes `answer_s` seconds.

    They come for `answer_s` until so many are open, and half as long again, which is what counts.
    """

    streams: int
    answer_s: float

    @property
    def ends_s(self) -> float:
        """When no more come."""
        return 1.5 * self.answer_s

    def times_s(self) -> list[float]:
        """When they come, a Poisson process, the same each time."""
        random_ = random.Random(_SEED)  # noqa: S311 - no secret
        times_s, now_s = list[float](), 0.0
        while (now_s := now_s + random_.expovariate(self.streams / self.answer_s)) < self.ends_s:
            times_s.append(now_s)
        return times_s


async def arriving(ask: Ask, questions: Iterator[str], arrivals: Arrivals, grace_s: float) -> Load:
    """Asks at those times whatever goes on; what has no answer `grace_s` after the last should have one is an error."""
    load, open_streams = Load(), list[int]()
    times_s = arrivals.times_s()
    load.counted = slice(sum(time_s < arrivals.answer_s for time_s in times_s), None)
    began_s = time.perf_counter()
    ends_s = began_s + arrivals.ends_s + arrivals.answer_s + grace_s
    async with asyncio.TaskGroup() as group:
        for caller, (time_s, question) in enumerate(zip(times_s, questions, strict=False)):
            await asyncio.sleep(began_s + time_s - time.perf_counter())
            open_streams.append(sum(not heard.ended_s for heard in load.heard))
            group.create_task(_hear(ask, question, caller, load, ends_s - time.perf_counter()))
    load.wall_s = time.perf_counter() - began_s
    load.open_streams = fmean(open_streams[load.counted])
    return load


async def _hear(ask: Ask, question: str, caller: int, load: Load, timeout_s: float) -> None:
    heard = Heard()
    load.heard.append(heard)
    try:
        async with asyncio.timeout(timeout_s):
            await ask(question, caller, heard)
    except Exception as error:  # noqa: BLE001 - each client raises its own; what went wrong is told
        heard.error = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    heard.end()


def distinct(questions: Sequence[str]) -> Iterator[str]:
    """The questions, and again with a word more each time, so that none comes twice."""
    turn = 0
    while True:
        yield from (f"{question} ({turn})" if turn else question for question in questions)
        turn += 1
