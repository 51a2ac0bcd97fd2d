"""What holds of admission whatever comes and goes."""

import asyncio
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.generator_svc.waiting_line import Line, settle


@dataclass(frozen=True)
class Ask:
    owner: str
    n: int
    tokens: int
    priority: int


@dataclass(frozen=True)
class Leave:
    """One who waits, if any does."""

    which: int


@dataclass(frozen=True)
class End:
    """One who runs, if any does; with `leaving` all who wait are cancelled in the same turn of the loop."""

    which: int
    leaving: bool


class Witness:
    """Asks a line for places and knows, by what came of it, how full it must be."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._asked: dict[str, Ask] = {}
        self._running: dict[str, Ask] = {}
        self._seen = 0

    async def see(self, step: Ask | Leave | End) -> None:
        """Let it happen, and look."""
        waiting = self._waiting()
        if isinstance(step, Ask):
            name = f"{step.owner}{len(self._asked)}"
            self._asked[name] = step
            await self._line.ask(name, step.owner, n=step.n, tokens=step.tokens, priority=step.priority)
        elif isinstance(step, Leave) and waiting:
            await self._line.leave(waiting[step.which % len(waiting)])
        elif isinstance(step, End) and self._running:
            await self._end(list(self._running)[step.which % len(self._running)], waiting if step.leaving else [])
        self._look()

    async def end_all(self) -> None:
        """Until nothing runs; then nobody waits, and nothing is left."""
        while self._running:
            await self.see(End(0, leaving=False))
        for name, task in self._line.tasks.items():
            assert name in self._line.started or task.cancelled() or self._line.refusal(name).reason == "OVERLOADED"
        assert not self._line.admission._tenants
        assert not self._line.admission._turns

    async def _end(self, name: str, leaving: list[str]) -> None:
        # Half are cancelled just before, half just after: also who is admitted in between.
        for other in leaving[::2]:
            self._line.tasks[other].cancel()
        self._line.admission.release(self._line.tasks[name].result(), self._running.pop(name).tokens // 2)
        for other in leaving[1::2]:
            self._line.tasks[other].cancel()
        await settle()

    def _look(self) -> None:
        admission, started = self._line.admission, self._line.started
        self._running |= {name: self._asked[name] for name in started[self._seen :]}
        self._seen = len(started)
        tokens = sum(ask.tokens for ask in self._running.values())
        limit = admission.limits.max_running_tokens
        waiting = sum(self._asked[name].n for name in self._waiting())
        assert admission.running == sum(ask.n for ask in self._running.values()) <= admission.limits.max_running
        assert admission.running_tokens == tokens
        assert not limit or tokens <= limit or len(self._running) == 1
        assert admission.waiting == waiting <= admission.limits.max_waiting
        assert self._running or not waiting

    def _waiting(self) -> list[str]:
        return [name for name, task in self._line.tasks.items() if not task.done()]


_ASKS = st.builds(Ask, st.sampled_from("abc"), st.integers(1, 3), st.integers(0, 60), st.integers(-2, 2))
_STEPS = st.one_of(
    _ASKS, _ASKS, st.builds(Leave, st.integers(0, 50)), st.builds(End, st.integers(0, 50), st.booleans())
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_STEPS, max_size=40), st.integers(0, 6), st.sampled_from([0, 40, 100]))
def test_budgets_hold_and_nobody_is_lost(steps: list[Ask | Leave | End], max_waiting: int, token_limit: int) -> None:
    """Whatever comes and goes: neither budget is exceeded, but by one alone; all are admitted, refused or left."""

    async def lived() -> None:
        witness = Witness(Line(max_running=3, max_waiting=max_waiting, max_running_tokens=token_limit))
        for step in steps:
            await witness.see(step)
        await witness.end_all()

    asyncio.run(lived())
