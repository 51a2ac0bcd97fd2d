"""Reads many answers at once and says how fast they came, token by token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from bench.harness import Reading, cpu_s, quantile

_TOGETHER_S = 0.001
# No shorter: timers of the loop count whole milliseconds.
_SAMPLE_S = 0.001
_IDLE_S = 0.03
_BUSY_SHARE = 0.3


@dataclass
class Heard:
    """When the tokens of one answer came, in seconds since it was asked for."""

    began_s: float = field(default_factory=time.perf_counter)
    first_s: float = 0.0
    """The time of the first text: a token may be but half a character, and then shows none."""
    messages: list[tuple[float, int]] = field(default_factory=list)
    """The time and the tokens of each message that brought any; 0 tokens where the message does not say how many."""
    total: int = 0
    """The tokens of the answer by its usage."""
    search_s: float = 0.0
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    def token(self, text: str, count: int = 0) -> None:
        """A message has come with so many tokens, 0 for some, and the text that they complete."""
        self.messages.append((time.perf_counter() - self.began_s, count))
        if text and not self.first_s:
            self.first_s = self.messages[-1][0]
        self.begun.set()

    @property
    def first_ms(self) -> float:
        """Until the first text, the search left out."""
        return ((self.first_s or self.messages[0][0]) - self.search_s) * 1000

    def gaps_ms(self) -> list[float]:
        """Between each token after the first message's and the one before it.

        Tokens that came together, within a millisecond, share the time since those before them: they were joined by the
        server or waited in a socket. Where messages do not say how many tokens they bring, each brings as many.
        """
        even = self.total / len(self.messages)
        together: list[tuple[float, float]] = []
        for at_s, count in self.messages:
            tokens = count or even
            if together and at_s - together[-1][0] < _TOGETHER_S:
                came_s, earlier = together.pop()
                together.append((came_s, earlier + tokens))
            else:
                together.append((at_s, tokens))
        gaps: list[float] = []
        for (before_s, _), (at_s, tokens) in pairwise(together):
            gaps += [(at_s - before_s) * 1000 / tokens] * max(round(tokens), 1)
        return gaps


Ask = Callable[[str, int, Heard], Coroutine[Any, Any, None]]
"""Asks a question for so many tokens and hears the whole answer; cancelling it leaves the answer."""


@dataclass
class Subject:
    """Something that answers: how to ask it, whose CPU time is its own, and the process of its engine."""

    ask: Ask
    serving: Sequence[int]
    engine: int
    asked: int = 0

    def question(self) -> str:
        """A question that it was not asked before; the same ones in the same order for every subject."""
        self.asked += 1
        return f"What is said of the harbour in line {self.asked}?"


@dataclass
class Load:
    """What some bursts of answers came to."""

    answers: list[Heard] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def tokens(self) -> int:
        """The tokens of all answers."""
        return sum(heard.total for heard in self.answers)

    def readings(self, streams: int) -> dict[str, Reading]:
        """The figures, named for the number of streams."""
        first = [heard.first_ms for heard in self.answers]
        gaps = [gap for heard in self.answers for gap in heard.gaps_ms()]
        return {
            f"ttft_p50_ms_{streams}": Reading(quantile(first, 0.5), "ms"),
            f"ttft_p99_ms_{streams}": Reading(quantile(first, 0.99), "ms"),
            f"itl_p50_ms_{streams}": Reading(quantile(gaps, 0.5), "ms"),
            f"itl_p99_ms_{streams}": Reading(quantile(gaps, 0.99), "ms"),
            f"tokens_per_s_{streams}": Reading(self.tokens / self.wall_s, "tokens/s"),
        }


async def load(subject: Subject, streams: int, bursts: int, max_tokens: int) -> Load:
    """Asks `streams` questions at once, again when all are answered, `bursts` times; raises what an answer raises."""
    load = Load()
    used_s = sum(map(cpu_s, subject.serving))
    for _ in range(bursts):
        began_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(streams):
                heard = Heard()
                load.answers.append(heard)
                group.create_task(_asked(subject, max_tokens, heard))
        load.wall_s += time.perf_counter() - began_s
    load.cpu_s = sum(map(cpu_s, subject.serving)) - used_s
    return load


async def _asked(subject: Subject, max_tokens: int, heard: Heard) -> None:
    await subject.ask(subject.question(), max_tokens, heard)


async def cancel_to_free_ms(subject: Subject, max_tokens: int) -> float:
    """Asks once, leaves after the first token, and returns how long the engine went on working.

    The engine's process is idle but for this one answer, so its CPU time tells, for every subject alike and without
    asking its server, when it stopped: the last sample of a millisecond in which it was busy.
    """
    heard = Heard()
    asking = asyncio.create_task(subject.ask(subject.question(), max_tokens, heard))
    await heard.begun.wait()
    asking.cancel()
    left_s = time.perf_counter()
    busy_s = await _last_busy_s(subject.engine)
    await asyncio.wait({asking})
    return max(busy_s - left_s, 0.0) * 1000


async def _last_busy_s(pid: int) -> float:
    """When the process was last busy, once it has been idle for a while."""
    last_s = before_s = time.perf_counter()
    used_s = cpu_s(pid)
    while before_s - last_s < _IDLE_S:
        await asyncio.sleep(_SAMPLE_S)
        now_s, now_used_s = time.perf_counter(), cpu_s(pid)
        if now_used_s - used_s > _BUSY_SHARE * (now_s - before_s):
            last_s = now_s
        before_s, used_s = now_s, now_used_s
    return last_s
