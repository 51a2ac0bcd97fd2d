"""What holds of a conversation whatever its caller says, and whenever."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.answers import Answer, Question
from gateway.awaiting import Awaiting
from gateway.conversing import Acknowledge, Interrupt, Refine, Said, converse
from gateway.events import Failed, Numbered, Started
from gateway.generation import Delta, Ending
from gateway.relaying import Pace, Relay, Underway
from meshkit.errors import Internal, MeshError
from tests.gateway.in_memory import QUESTION, World

PACE = Pace(heartbeat_s=60.0, hold_s=0.01, buffer_events=16, leave_timeout_s=2.0)
WINDOW = 4


@dataclass(frozen=True)
class Step:
    """Something that is said so many turns of the loop after what was said before it."""

    said: Said
    turns: int


_SAID = st.one_of(
    st.just(replace(QUESTION, session="s1")),
    st.just(Interrupt()),
    st.just(Refine("Really?", 'lang = "en"')),
    st.builds(Acknowledge, st.integers(0, 60)),
)
_STEPS = st.lists(st.builds(Step, _SAID, st.integers(0, 120)), max_size=8)


class Caller:
    """Says the steps and hears what comes."""

    def __init__(self, steps: list[Step]) -> None:
        self._world = World()
        self._steps = steps
        self.lengthen(30)
        self.underway: list[Underway] = []
        self.heard: list[list[Numbered]] = []
        self.error: MeshError | None = None

    def lengthen(self, tokens: int) -> None:
        """Have answers of so many tokens."""
        self._world.generator.deltas = [*(Delta(f"{n} ", 1) for n in range(tokens)), Delta(ending=Ending.STOP)]

    async def talk(self) -> None:
        try:
            async with asyncio.timeout(5):
                async for event in converse(self._said(), self._open, WINDOW):
                    if event.sequence == 1:
                        self.heard.append([])
                    self.heard[-1].append(event)
        except MeshError as error:
            self.error = error

    async def _said(self) -> AsyncIterator[Said]:
        for step in self._steps:
            for _ in range(step.turns):
                await asyncio.sleep(0)
            yield step.said

    def _open(self, question: Question, awaiting: Awaiting) -> Relay:
        course = self._world.begin(question)
        course.awaiting = awaiting
        self.underway.append(Underway(course, PACE))
        return Relay(self.underway[-1])


async def test_fault_of_ours_ends_the_conversation() -> None:
    """What nobody foresaw in what is said ends it with fixed words, rather than let its caller wait."""

    async def said() -> AsyncIterator[Said]:
        raise ValueError("password=secret")
        yield Interrupt()

    with pytest.raises(Internal) as raised:
        async with asyncio.timeout(2):
            await anext(converse(said(), Caller([])._open, WINDOW))
    assert "secret" not in str(raised.value)


@settings(max_examples=100, deadline=None)
@given(_STEPS)
def test_every_answer_is_heard_to_its_end(steps: list[Step]) -> None:
    """Each is numbered from 1 without gaps and has one last event; nobody waits for ever, nothing is left behind."""

    async def talk() -> Caller:
        caller = Caller(steps)
        await caller.talk()
        assert all(underway.ended and not underway.readers for underway in caller.underway)
        return caller

    caller = asyncio.run(talk())
    asked = [step.said for step in steps if isinstance(step.said, Question | Refine)]
    for events in caller.heard:
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        # One that was stopped before it had begun has its end alone.
        assert isinstance(events[0].event, Started) or len(events) == 1
        assert sum(isinstance(event.event, Answer | Failed) for event in events) == 1
        assert isinstance(events[-1].event, Answer | Failed)
    if caller.error:
        assert caller.error.reason == "OUT_OF_ORDER"
    else:
        assert len(caller.underway) == len(caller.heard) == len(asked)
        assert caller.heard == [] or isinstance(caller.heard[-1][-1].event, Answer)


async def test_engine_waits_for_who_acknowledges() -> None:
    """Behind the window the answer waits, and with it the engine; what is acknowledged lets both go on."""
    caller = Caller([Step(Acknowledge(0), 0), Step(replace(QUESTION, session="s1"), 0), Step(Acknowledge(3), 2000)])
    caller.lengthen(500)
    talking = asyncio.create_task(caller.talk())
    counts: list[int] = []
    for _ in range(2):
        for _ in range(1000):
            await asyncio.sleep(0)
        counts.append(len(caller.underway[0].events))
    assert counts[0] == counts[1] <= WINDOW + PACE.buffer_events + 1
    assert len(caller.heard[0]) == WINDOW
    async with asyncio.timeout(5):
        await talking
    assert len(caller.heard[0]) > 500
