"""What parts of an answer make up, and how they are written."""

import asyncio
from datetime import UTC, datetime

from gateway.answers import Answer, FinishReason, Question
from gateway.events import Failed, Numbered, Token
from gateway.journal import Background, Opening, Part, recorded
from gateway.journaling import Habits, Journaling, open_journaling
from gateway.relaying import Pace, Relay, Underway
from meshkit.errors import Unavailable
from tests.gateway.in_memory import ALICE, MemoryJournal, World

ANSWER = Answer("a1", "s1", "collections/handbook", "How long?", "", FinishReason.STOP)
BACKGROUND = Background({}, "")
PACE = Pace(heartbeat_s=5.0, hold_s=1.0, buffer_events=64, leave_timeout_s=2.0)


def _opening(producer: str) -> Opening:
    return Opening(Question("How long?", "collections/handbook"), ANSWER, datetime.now(UTC), producer)


def _part(*sequences: int, opening: Opening | None = None, background: Background | None = None) -> Part:
    events = tuple(Numbered(sequence, 0.0, Token(f"{sequence} ")) for sequence in sequences)
    return Part(ALICE, "a1", events, opening, background)


def test_parts_stand_in_order_each_event_once() -> None:
    """A part that was written twice, for want of an answer of the store, counts once."""
    first, end = _opening("p1"), Numbered(6, 0.0, Failed(Unavailable("ENGINE_UNAVAILABLE", "died")))
    last = Part(ALICE, "a1", (end,), background=BACKGROUND)
    parts = [_part(1, 2, opening=first), _part(1, 2, 3, opening=first), _part(4), _part(4, 5), last]
    record = recorded(parts)
    assert record is not None
    assert [numbered.sequence for numbered in record.events] == [1, 2, 3, 4, 5, 6]
    assert (record.opening, record.background, record.ended) == (first, BACKGROUND, True)


def test_answer_begun_anew_leaves_the_dead_one_behind() -> None:
    """Of two courses under one name the later one counts."""
    again = _opening("p2")
    record = recorded([_part(1, 2, 3, opening=_opening("p1")), _part(1, opening=again)])
    assert record is not None
    assert (record.opening, len(record.events), record.ended) == (again, 1, False)


def test_no_opening_is_no_record() -> None:
    """What is left of a journal whose beginning is gone tells nothing."""
    assert recorded([]) is None
    assert recorded([_part(4)]) is None


async def test_answer_is_saved_when_the_store_is_back() -> None:
    """What could not be kept at an answer's end is kept later, though the caller was told and has gone."""
    world = World()
    journal = MemoryJournal()
    async with open_journaling(journal, Habits(flush_s=0.01, alive_s=1.0, patience_s=10.0)) as journaling:
        underway = Underway(world.begin(), PACE)
        written = asyncio.Event()
        journal.away = world.answers.away = world.sessions.away = True
        journaling.begin(underway, lambda _: written.set(), at_once=False)
        async with Relay(underway) as relay:
            answer = await relay.last()
        assert [left.reason for left in answer.degradations] == ["STORE_UNAVAILABLE"]
        await asyncio.sleep(0.05)
        assert [journal.parts, world.answers.answers, written.is_set()] == [[], {}, False]
        journal.away = world.answers.away = world.sessions.away = False
        async with asyncio.timeout(2):
            await written.wait()
    ((turn,),) = world.sessions.turns.values()
    assert (world.kept.text, turn.text) == (answer.text, answer.text)
    record = recorded(journal.parts)
    assert record is not None
    assert record.ended


async def _over(world: World, journaling: Journaling) -> Underway:
    """An answer that is written down, or given up."""
    underway = Underway(world.begin(), PACE)
    over = asyncio.Event()
    journaling.begin(underway, lambda _: over.set(), at_once=False)
    async with asyncio.timeout(2):
        async with Relay(underway) as relay:
            await relay.last()
        await over.wait()
    return underway


async def test_answer_that_cannot_be_written_ends_no_other() -> None:
    """It is given up, and those that come later are written."""
    world = World()
    journal = MemoryJournal(fault=ValueError("no JSON"))
    async with open_journaling(journal, Habits(flush_s=0.01, alive_s=1.0, patience_s=0.05)) as journaling:
        await _over(world, journaling)
        journal.fault = None
        last = await _over(world, journaling)
    record = recorded(journal.parts)
    assert record is not None
    assert record.opening.answer.id == last.course.answer.id


async def test_store_that_stays_away_is_given_up() -> None:
    """An answer that cannot be written down is not held for ever."""
    world, journal = World(), MemoryJournal(away=True)
    async with open_journaling(journal, Habits(flush_s=0.01, alive_s=1.0, patience_s=0.05)) as journaling:
        await _over(world, journaling)
    assert journal.parts == []
