"""A second attempt at a call that takes longer than most: the first answer counts, within a budget."""

import asyncio
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeVar

from meshkit.errors import MeshError, ResourceExhausted, Unavailable

_Answer = TypeVar("_Answer")
Attempt = Callable[[], Coroutine[Any, Any, _Answer]]

# Who fails so has not begun: another may be asked at once, at no cost to the one who refused.
_REFUSALS = (Unavailable, ResourceExhausted)


@dataclass(frozen=True, slots=True)
class Policy:
    """When a call gets a second attempt, and how many do.

    It does after the time within which the share `quantile` of the last `window` calls had ended, never before
    `floor_s` nor after `ceiling_s`, which holds too until `least` calls are known. Of all calls at most the share
    `budget` gets one; what is not used is kept for later, `burst` attempts at most.
    """

    quantile: float = 0.95
    window: int = 256
    least: int = 20
    floor_s: float = 0.01
    ceiling_s: float = 1.0
    budget: float = 0.05
    burst: float = 10.0


@dataclass(slots=True)
class Totals:
    """Calls so far: those hedged, of these those that the second attempt won, and those the budget did not allow."""

    calls: int = 0
    hedged: int = 0
    won: int = 0
    denied: int = 0


class Hedging:
    """Calls one peer with several replicas; belongs to one event loop, nothing to close."""

    def __init__(self, policy: Policy, clock: Callable[[], float] = time.monotonic) -> None:
        self.totals = Totals()
        self._policy = policy
        self._clock = clock
        # Attempts that may be made. None at first, so that the share holds from the first call on.
        self._budget = 0.0
        # The times of the last calls, oldest first and shortest first.
        self._latest_s: deque[float] = deque()
        self._sorted_s: list[float] = []

    @property
    def delay_s(self) -> float:
        """Seconds after which a call takes longer than most."""
        policy, count = self._policy, len(self._sorted_s)
        if count < policy.least:
            return policy.ceiling_s
        usual_s = self._sorted_s[max(ceil(policy.quantile * count), 1) - 1]
        return min(max(usual_s, policy.floor_s), policy.ceiling_s)

    async def call(self, attempts: Sequence[Attempt[_Answer]]) -> _Answer:
        """The answer of the first attempt, or of the second where the first takes long or is refused.

        Each attempt, of at least one, is at another replica; the third and later ones are made after refusals only.
        An attempt that is not needed any more is cancelled. Raises the error of the attempt that failed last.
        """
        self.totals.calls += 1
        if len(attempts) == 1:
            return await attempts[0]()
        self._budget = min(self._budget + self._policy.budget, self._policy.burst)
        began_s = self._clock()
        answer = await self._hedged(attempts)
        # Of a call that was hedged the time to its answer, no less than the delay: so hedging does not shorten it.
        self._learn(self._clock() - began_s)
        return answer

    async def _hedged(self, attempts: Sequence[Attempt[_Answer]]) -> _Answer:
        first = asyncio.create_task(attempts[0]())
        racing = [first]
        try:
            in_time, _ = await asyncio.wait(racing, timeout=self.delay_s)
            if in_time or not self._allowed():
                return await in_turn([lambda: _ended(first), *attempts[1:]])
            racing.append(asyncio.create_task(attempts[1]()))
            winner = await _first_answer(racing)
            self.totals.won += winner is not first
            return winner.result()
        finally:
            for attempt in racing:
                attempt.cancel()
            await asyncio.gather(*racing, return_exceptions=True)

    def _allowed(self) -> bool:
        """Take a second attempt out of the budget, if it has one."""
        if self._budget < 1:
            self.totals.denied += 1
            return False
        self._budget -= 1
        self.totals.hedged += 1
        return True

    def _learn(self, took_s: float) -> None:
        self._latest_s.append(took_s)
        insort(self._sorted_s, took_s)
        if len(self._latest_s) > self._policy.window:
            del self._sorted_s[bisect_left(self._sorted_s, self._latest_s.popleft())]


async def in_turn(attempts: Sequence[Attempt[_Answer]]) -> _Answer:
    """The answer of the first of the attempts, at least one, that is not refused; raises the last one's error."""
    *others, last = attempts
    for attempt in others:
        try:
            return await attempt()
        except _REFUSALS:
            continue
    return await last()


async def _ended(task: asyncio.Task[_Answer]) -> _Answer:
    return await task


async def _first_answer(racing: Sequence[asyncio.Task[_Answer]]) -> asyncio.Task[_Answer]:
    """The first of the tasks to end with an answer; where all fail, the last one to."""
    running = set(racing)
    while True:
        ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        answered = [task for task in ended if not isinstance(task.exception(), MeshError)]
        if answered or not running:
            return (answered or list(ended))[0]
