"""Markers become citations, however the text is cut."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.answers import Citation
from gateway.citing import Citer, without_markers
from gateway.retrieval import Chunk, Hit, Span

LEAVE = "Employees get 25 days of leave.\nIt is asked for  in the portal. Sick leave is apart."
PAY = "Gehälter werden am 25. gezahlt. 工资每月支付。年假为二十五天。"


def _chunk(text: str, ordinal: int = 0) -> Chunk:
    span = Span(100, 100 + len(text.encode()))
    return Chunk(f"chunks/{ordinal}", "documents/d", text, span, ordinal, 3, ("A", "B"), "Title", "uri")


HITS = [Hit(_chunk(LEAVE), 1.0), Hit(_chunk(PAY, 1), 0.5)]


def _cited(text: str, *cuts: int) -> list[Citation]:
    citer = Citer(dict(enumerate(HITS, start=1)))
    places = [0, *sorted(cuts), len(text)]
    return [found for begin, end in pairwise(places) for found in citer.feed(text[begin:end])]


def _claims(text: str) -> list[tuple[int, str]]:
    raw = text.encode()
    return [(c.number, raw[c.answer.start : c.answer.end].decode()) for c in _cited(text)]


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("25 days [1].", [(1, "25 days")]),
        ("25 days. [1]", [(1, "25 days.")]),
        ("25 days.[1]", [(1, "25 days.")]),
        ("One thing. Another [1].", [(1, "Another")]),
        ("A [1]. B [2].", [(1, "A"), (2, "B")]),
        ("A. [1] B. [2]", [(1, "A."), (2, "B.")]),
        ("A [1][2].", [(1, "A"), (2, "A")]),
        ("A [1], [2].", [(1, "A"), (2, "A")]),
        ("A [1, 2].", [(1, "A"), (2, "A")]),
        ("A [1,1].", [(1, "A")]),
        ("A [7] b [1].", [(1, "A [7] b")]),
        ("A [1, 9].", [(1, "A")]),
        ("Years [2024] and [x] and [].", []),
        ("- Item one [1]\n- Item two [2]", [(1, "Item one"), (2, "Item two")]),
        ("[1] says so.", [(1, "")]),
        ("今天休息。年假很长。[1]", [(1, "年假很长。")]),
        ("Überstunden zählen [1].", [(1, "Überstunden zählen")]),
        ("no marker [1", []),
        ("A [1; 2].", [(1, "A"), (2, "A")]),
        ("A [1-2].", [(1, "A"), (2, "A")]),
        ("A [^1].", [(1, "A")]),
        ("年假很长【1】。", [(1, "年假很长")]),
        ("Leave【2†source】.", [(2, "Leave")]),
        ("Since 1995 [1995-2020] so.", []),
        ("1. Item one [1]\n2. Item two. [2]", [(1, "Item one"), (2, "Item two.")]),
        ("| Leave | 25 days [1] |\n| Pay | monthly | [2]", [(1, "Leave | 25 days"), (2, "Pay | monthly")]),
        ("Dr. Smith said so [1].", [(1, "Dr. Smith said so")]),
        ("Call `a[1]` first [2].", [(2, "Call `a[1]` first")]),
        ("Run:\n```\nx = a[1]\n```\n[2]", [(2, "```")]),
    ],
)
def test_claim_is_what_stands_before_its_marker(text: str, claims: list[tuple[int, str]]) -> None:
    """A claim goes back to the last sentence or marker; markers side by side share it."""
    assert _claims(text) == claims


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("Employees get 25 days of leave. [1]", "Employees get 25 days of leave."),
        ("Employees get 25 days of leave [1].", "Employees get 25 days of leave."),
        ("It is asked for in the portal. [1]", "It is asked for  in the portal."),
        ("As said: x. Sick leave is apart [1].", "Sick leave is apart."),
        ("年假为二十五天。[2]", "年假为二十五天。"),
        ("Gehälter werden am 25. gezahlt. [2]", "Gehälter werden am 25. gezahlt."),
    ],
)
def test_verbatim_claim_is_found_in_its_chunk(text: str, quote: str) -> None:
    """The source span of a quotation covers its words exactly, counted in bytes of the document."""
    (cited,) = _cited(text)
    source = HITS[cited.number - 1].chunk.text.encode()
    assert cited.verbatim
    assert cited.quote == quote
    assert source[cited.source.start - 100 : cited.source.end - 100].decode() == quote


def test_quotation_of_several_sentences_is_one_claim() -> None:
    """Where all the text before a marker stands in the source, all of it is the claim."""
    text = "It is asked for in the portal. Sick leave is apart. [1]"
    (cited,) = _cited(text)
    assert (cited.answer, cited.verbatim) == (Span(0, text.index(" [1]")), True)


@pytest.mark.parametrize("text", ["Staff have leave [1].", "days of lea [1]", "loyees get 25 days [1]"])
def test_paraphrase_cites_the_whole_chunk(text: str) -> None:
    """A claim that is not in the chunk word for word cites all of it and quotes nothing."""
    (cited,) = _cited(text)
    assert (cited.verbatim, cited.quote, cited.source) == (False, "", HITS[0].chunk.source)


def test_neighbour_that_has_the_words_is_cited() -> None:
    """A quotation from a hit's window cites the neighbour in which it stands."""
    hit = Hit(_chunk("First part.", 4), 1.0, window=(_chunk("Second part.", 5),))
    (cited,) = Citer({1: hit}).feed("Second part. [1]")
    assert (cited.chunk, cited.verbatim) == ("chunks/5", True)


def test_quotation_over_neighbours_is_found_in_the_first() -> None:
    """A sentence that the cut of the document parts is cited from where it begins to where it ends."""
    first, second = _chunk("Leave is asked for", 4), _chunk("in the portal. Else not.", 5)
    second = replace(second, source=Span(200, 224), page=4)
    (cited,) = Citer({1: Hit(second, 1.0, window=(first,))}).feed("Leave is asked for in the portal. [1]")
    assert (cited.chunk, cited.page, cited.verbatim) == ("chunks/4", 3, True)
    assert cited.source == Span(100, 214)
    assert cited.quote == "Leave is asked for\nin the portal."


def test_quotations_of_two_chunks_have_each_its_own() -> None:
    """Of sentences that share their markers each is cited from the chunk that has it."""
    text = "Employees get 25 days of leave. Gehälter werden am 25. gezahlt. [1][2]"
    first, second = _cited(text)
    assert (first.quote, second.quote) == ("Employees get 25 days of leave.", "Gehälter werden am 25. gezahlt.")
    assert first.answer.end < second.answer.start


def test_page_and_headings_are_those_of_the_chunk_quoted() -> None:
    """Not those of the hit, where a neighbour has the words."""
    neighbour = replace(_chunk("Second part.", 5), page=9, heading_path=("C",))
    (cited,) = Citer({1: Hit(_chunk("First part.", 4), 1.0, window=(neighbour,))}).feed("Second part. [1]")
    assert (cited.page, cited.heading_path) == (9, ("C",))


def test_markers_of_passages_not_shown_are_plain_text() -> None:
    """A passage that was dropped from the prompt cannot be cited, and the others keep their numbers."""
    citer = Citer({2: HITS[1]})
    assert [cited.number for cited in citer.feed("A [1]. 工资每月支付。[2]")] == [2]


def test_citation_describes_its_chunk() -> None:
    """A citation carries what a reader needs to find the place."""
    (cited,) = _cited("x [1]")
    assert (cited.title, cited.uri, cited.page, cited.heading_path) == ("Title", "uri", 3, ("A", "B"))


PIECES = [
    "[1]",
    "[2]",
    "[1, 2]",
    "[9]",
    "【1】",
    "[1-2]",
    "```\n",
    "`",
    "- ",
    "[",
    "]",
    "1",
    " ",
    ".",
    "\n",
    "ä",
    "。",
    "Employees get 25 days of leave.",
    "x y",
]


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join), st.data())
def test_cuts_make_no_difference(text: str, data: st.DataObject) -> None:
    """Any way to cut a text into deltas gives the same citations."""
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    assert _cited(text, *cuts) == _cited(text)
    assert _cited(text, *range(len(text))) == _cited(text)


@given(st.text(max_size=200).map(lambda text: f"{text} [1] {text}[2]"))
def test_spans_lie_on_characters(text: str) -> None:
    """Spans of any answer are whole UTF-8 and lie within it."""
    raw = text.encode()
    for cited in _cited(text):
        raw[cited.answer.start : cited.answer.end].decode()
        assert 0 <= cited.answer.start <= cited.answer.end <= len(raw)


def test_history_loses_its_markers() -> None:
    """The numbers of an earlier answer do not reach the model again."""
    assert without_markers("A [1]. B [1, 2][3].") == "A. B."
    assert without_markers("年假很长【1】。B【2†x】") == "年假很长。B"
