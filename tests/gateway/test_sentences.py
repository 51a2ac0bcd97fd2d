"""Answers are cut into sentences, however the text is cut into deltas."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sentences import Sentences, sentences


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("One thing. Another.", ["One thing. ", "Another."]),
        ("25 days. [1] Ask HR [2]. Done", ["25 days. [1] ", "Ask HR [2]. ", "Done"]),
        ("25 days.[1][2]Ask.", ["25 days.[1][2]", "Ask."]),
        ("25 days. [note] Ask.", ["25 days. ", "[note] Ask."]),
        ("Dr. J. Smith of the U.S. Army left. He is 3.5 m tall, e.g. here.", None),
        ("1. One\n2. Two", ["1. One\n", "2. Two"]),
        ("- One [1]\n- Two [2]\n", ["- One [1]\n", "- Two [2]\n"]),
        ("A line\nthat goes on. Next", ["A line\nthat goes on. ", "Next"]),
        ("It is so.\n[1]\nNext.", ["It is so.\n[1]\n", "Next."]),
        ("Run:\n```\na = b[1]. C\nD\n```\n[1]\nNext", ["Run:\n", "```\na = b[1]. C\nD\n```\n[1]\n", "Next"]),
        ("年假很长。【1】今天休息！好", ["年假很长。【1】", "今天休息！", "好"]),
        ("“Stop!” he said. “Go.” Then", ["“Stop!” he said. ", "“Go.” ", "Then"]),
        ("", []),
    ],
)
def test_text_is_cut_at_the_ends_of_sentences(text: str, cut: list[str] | None) -> None:
    """Markers belong to the sentence before them; abbreviations, broken lines and code end nothing."""
    expected = ["Dr. J. Smith of the U.S. Army left. ", "He is 3.5 m tall, e.g. here."] if cut is None else cut
    assert list(sentences(text)) == expected


def test_sentence_comes_as_soon_as_the_next_one_begins() -> None:
    """What may still be a marker is waited for."""
    cutting = Sentences()
    assert [cutting.feed(text) for text in ("One. ", "[", "1", "]", " ", "T", "wo")] == [
        [],
        [],
        [],
        [],
        [],
        ["One. [1] "],
        [],
    ]
    assert cutting.rest() == "Two"


def test_endless_sentence_is_cut() -> None:
    """So that what is held of an answer has a bound."""
    text = "word " * 2000
    cut = list(sentences(text))
    assert "".join(cut) == text
    assert max(map(len, cut)) <= 4000


@pytest.mark.timeout(5)
@pytest.mark.parametrize("sign", ["\n", " ", "?", "。", "[", "\n["])
def test_long_text_is_cut_at_once(sign: str) -> None:
    """However it is made: a tool's result or a model that repeats itself holds no other answer up."""
    text = f"a{sign * 16_384}a"
    assert "".join(sentences(text)) == text


PIECES = [
    "One",
    " two",
    ".",
    "!",
    " ",
    "\n",
    "[1]",
    "[",
    "]",
    "【2】",
    "Mr.",
    "。",
    "```\n",
    "`",
    "1. ",
    "- ",
    "A",
    "a",
    "”",
]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), st.data())
def test_cuts_make_no_difference(text: str, data: st.DataObject) -> None:
    """Any way to feed a text gives the same sentences, and together they are the text."""
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    places = [0, *sorted(cuts), len(text)]
    for ends in (places, range(len(text) + 1)):
        cutting = Sentences()
        found = [cut for begin, end in pairwise(ends) for cut in cutting.feed(text[begin:end])]
        assert [*found, *filter(None, [cutting.rest()])] == list(sentences(text))
    assert "".join(sentences(text)) == text
