"""Sentences are graded by the passages shown."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.answers import Grounding
from gateway.grounding import Grounder
from gateway.retrieval import Chunk, Hit, Span

LEAVE = (
    "Employees get 25 days of annual leave. It does not expire before March. "
    "Requests go to Maria Weber in the portal, two weeks ahead."
)
PAY = "Salaries are paid on the last day of each month. 工资每月支付。年假为二十五天。"


def _hit(text: str, ordinal: int = 0) -> Hit:
    return Hit(
        Chunk(f"chunks/{ordinal}", "documents/d", text, Span(0, len(text.encode())), ordinal, title="Leave"), 1.0
    )


SHOWN = {1: _hit(LEAVE), 2: _hit(PAY, 1)}


def _graded(text: str, *cuts: int) -> list[Grounding]:
    grounder = Grounder(SHOWN, 0.5)
    places = [0, *sorted(cuts), len(text)]
    return [grade for begin, end in pairwise(places) for grade in grounder.feed(text[begin:end])] + grounder.rest()


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Employees get 25 days of annual leave. [1]", (1,)),
        ("- employees get  25 days\nof annual leave [1].", (1,)),
        ("“Salaries are paid on the last day of each month.”", (2,)),
        ("年假为二十五天。[2]", (2,)),
        ("| It does not expire before March | [1] |", (1,)),
    ],
)
def test_word_for_word_is_one(text: str, numbers: tuple[int, ...]) -> None:
    """However it is marked up, and with or without a citation."""
    (grade,) = _graded(text)
    assert (grade.score, grade.numbers) == (1.0, numbers)


@pytest.mark.parametrize(
    "text",
    [
        "Each employee gets 25 days of leave [1].",
        "Leave of 25 days is what employees get annually.",
        "Leave requests are made in the portal two weeks ahead, to Maria Weber.",
        "年假是二十五天。",
    ],
)
def test_paraphrase_is_supported(text: str) -> None:
    """With a score below that of a quotation."""
    (grade,) = _graded(text)
    assert 0.5 <= grade.score < 1
    assert grade.numbers


@pytest.mark.parametrize(
    "text",
    [
        "Employees get 30 days of annual leave [1].",
        "Requests go to John Miller in the portal.",
        "It expires before March [1].",
        "The canteen opens at noon on weekdays.",
        "Employees get 25 days of annual leave. [2]",
        "I could not find that in the passages.",
        "食堂中午开门。",
    ],
)
def test_what_the_passages_do_not_say_is_not_supported(text: str) -> None:
    """Another number, another name, the opposite, another matter, or a passage that does not have it."""
    (grade,) = _graded(text)
    assert grade.score < 0.5
    assert grade.numbers == ()


@pytest.mark.parametrize("text", ["## Annual leave\n", "[1]", "Yes.", "|---|---|", "", " \n"])
def test_what_claims_nothing_has_no_grade(text: str) -> None:
    """Headings, markers and marks."""
    assert _graded(text) == []


def test_grades_name_their_sentences() -> None:
    """Spans are bytes of the text, without bullets and the markers behind."""
    text = "Überall: It does not expire before March. [1]\n- Salaries are paid monthly [2]\n"
    spans = [text.encode()[grade.answer.start : grade.answer.end].decode() for grade in _graded(text)]
    assert spans == ["Überall: It does not expire before March.", "Salaries are paid monthly"]


def test_nothing_shown_grades_nothing() -> None:
    """A greeting has no passages to be held against."""
    grounder = Grounder({}, 0.5)
    assert [*grounder.feed("Hello there. How are you?"), *grounder.rest()] == []


def test_what_a_tool_told_supports_too() -> None:
    """Under no number, and not where the sentence cites a passage."""
    for marker, score in (("", 1.0), (" [1]", pytest.approx(0.0, abs=0.3))):
        grounder = Grounder(SHOWN, 0.5, told=["17 * 3 51"])
        (grade,) = [*grounder.feed(f"51{marker}"), *grounder.rest()]
        assert (grade.score, grade.numbers) == (score, ())


def test_window_is_part_of_what_was_shown() -> None:
    """The neighbours of a hit support as it does."""
    near = Hit(SHOWN[2].chunk, 1.0, window=(SHOWN[1].chunk,))
    (grade,) = Grounder({1: near}, 0.5).feed("It does not expire before March. [1]\nX")
    assert grade.score == 1.0


PIECES = [
    "Employees get 25 days",
    " of annual leave",
    ".",
    " ",
    "\n",
    "[1]",
    "[2]",
    "[",
    "A man",
    "。",
    "年假",
    "- ",
    "`",
]


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join), st.data())
def test_cuts_make_no_difference(text: str, data: st.DataObject) -> None:
    """Any way to cut a text into deltas gives the same grades."""
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    assert _graded(text, *cuts) == _graded(text)
    assert _graded(text, *range(len(text))) == _graded(text)


@given(st.text(max_size=200))
def test_scores_and_spans_are_sound(text: str) -> None:
    """Of any text: scores from 0 to 1, spans of whole characters, one behind the other."""
    raw, end = text.encode(), 0
    for grade in _graded(text):
        assert 0 <= grade.score <= 1
        assert end <= grade.answer.start < grade.answer.end <= len(raw)
        raw[grade.answer.start : grade.answer.end].decode()
        end = grade.answer.end
