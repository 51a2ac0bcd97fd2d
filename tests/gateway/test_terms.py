"""Words that carry meaning, as stems."""

import pytest

from gateway.terms import folded, joins, root, terms


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The Employees' leaves were requested", ["employe", "leav", "request"]),
        ("1,000 and 3.5 in three countries", ["1000", "3.5", "3", "country"]),
        ("年假为二十五天", ["年假", "假为", "为二", "二十", "十五", "五天"]),
        ("ＡＢＣ年", ["abc", "年"]),
        ("yes it is", []),
    ],
)
def test_terms_are_stems(text: str, found: list[str]) -> None:
    """Without words of the grammar; numbers however they are written; pairs of signs where no spaces are."""
    assert terms(folded(text)) == found


def test_other_forms_share_their_root() -> None:
    """Words of one family begin alike."""
    assert {root(term) for term in terms("population populous populated")} == {"popul"}


def test_quotations_end_between_words() -> None:
    """Where Latin letters are; other scripts may be quoted from any sign on."""
    assert joins("leave", 2)
    assert not joins("a leave", 2)
    assert not joins("leave", 0)
    assert not joins("年假", 1)
