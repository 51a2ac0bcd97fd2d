"""Where a passage is cut into quotes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator_svc.sentences import quotes


def _texts(passage: str) -> list[str]:
    return [quote.text for quote in quotes(passage)]


@pytest.mark.parametrize(
    ("passage", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. Smith met J. Doe at 5 p.m. on May 3. They left.",
         ["Dr. Smith met J. Doe at 5 p.m. on May 3.", "They left."]),
        ("It costs $3.50 today. Pay now.", ["It costs $3.50 today.", "Pay now."]),
        ("See e.g. Article 5. Then stop.", ["See e.g. Article 5.", "Then stop."]),
        ('He said "Go." Then he left.', ['He said "Go."', "Then he left."]),
        ("今天下雨。你好吗？很好！", ["今天下雨。", "你好吗？", "很好！"]),
        ("他说：“走吧。”然后离开。", ["他说：“走吧。”", "然后离开。"]),
        ("यह एक है। वह दो है।", ["यह एक है।", "वह दो है।"]),
        ("hard\nwrapped line. Next one.", ["hard\nwrapped line.", "Next one."]),
        ("no end", ["no end"]),
        ("", []),
        (" \n\t\n", []),
    ],
)  # fmt: skip
def test_sentences_end_where_a_reader_would_end_them(passage: str, expected: list[str]) -> None:
    """Abbreviations, initials, decimals and closing quotes are no boundaries; Chinese and Hindi marks are."""
    assert _texts(passage) == expected


def test_a_heading_is_the_context_of_what_stands_under_it() -> None:
    """Headings are not quoted; each quote knows its own."""
    found = quotes("# Leave\n\nThirty days.\n\n## Parents ##\n\nSix months.")

    assert [(quote.text, quote.heading) for quote in found] == [("Thirty days.", "Leave"), ("Six months.", "Parents")]


def test_list_items_are_quotes_without_their_markers() -> None:
    """Bullets and numbers are dropped; a wrapped item is one quote."""
    assert _texts("- first\n  goes on\n* second\n1. third") == ["first\n  goes on", "second", "third"]


def test_a_lead_is_quoted_with_its_code() -> None:
    """A sentence that ends in a colon takes the code block below it along; code alone is no quote."""
    passage = "Read this. Run the command:\n\n```shell\nkubectl apply -f x\n\ny\n```\n\nDone.\n\n```\nalone\n```\n"

    found = quotes(passage)

    assert [quote.text for quote in found] == [
        "Read this.",
        "Run the command:\n\n```shell\nkubectl apply -f x\n\ny\n```",
        "Done.",
    ]
    assert [quote.is_code for quote in found] == [False, True, False]


def test_a_lead_is_quoted_with_its_list_when_short() -> None:
    """The list below a lead is part of the quote up to a length; beyond it the items stand alone."""
    short = "You need:\n\n- a key\n- a lock\n"
    long = "You need:\n\n" + "".join(f"- {'word ' * 20}{number}\n" for number in range(9))

    assert _texts(short) == ["You need:\n\n- a key\n- a lock"]
    assert len(_texts(long)) == 10


def test_rules_comments_tags_and_shortcodes_are_left_out() -> None:
    """What a reader of the page does not see is not quoted."""
    assert _texts("---\n<!-- overview -->\n{{< note >}}\nKeep it.\n</div>\n") == ["Keep it."]


@given(st.text(alphabet="aB.?! \n#-`*|:。“”\r\x0b0", max_size=200))
def test_quotes_are_verbatim_and_in_order(passage: str) -> None:
    """Whatever the passage, each quote is a substring of it, found after the one before."""
    place = 0
    for quote in quotes(passage):
        assert quote.text.strip() == quote.text != ""
        place = passage.index(quote.text, place) + 1
