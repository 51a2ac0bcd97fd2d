"""What parts of an answer make up."""

from datetime import UTC, datetime

from gateway.answers import Answer, FinishReason, Question
from gateway.events import Failed, Numbered, Token
from gateway.journal import Background, Opening, Part, recorded
from meshkit.errors import Unavailable
from tests.gateway.in_memory import ALICE

ANSWER = Answer("a1", "s1", "collections/handbook", "How long?", "", FinishReason.STOP)
BACKGROUND = Background({}, "")


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
