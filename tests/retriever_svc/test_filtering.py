"""Filters: what is one, what it means, and what is said of one that is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshkit.errors import InvalidArgument
from retriever_svc.filtering import (
    MAX_COMPARISONS,
    MAX_DEPTH,
    All,
    Any,
    Comparison,
    Condition,
    Contains,
    Field,
    FieldType,
    Operator,
    Present,
    negate,
    parse,
)

FIELDS = {
    "lang": FieldType.TEXT,
    "year": FieldType.NUMBER,
    "draft": FieldType.BOOL,
    "team": FieldType.TEXT_LIST,
}
LANG, YEAR, DRAFT, TEAM = (Field(name, type_, in_metadata=True) for name, type_ in FIELDS.items())
PAGE = Field("page", FieldType.INTEGER, in_metadata=False)
EN = Comparison(LANG, Operator.EQUAL, "en")
NEW = Comparison(YEAR, Operator.GREATER_EQUAL, 2020)
INFRA = Contains(TEAM, "infra")


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("", None),
        ("  ", None),
        ("lang = en", EN),
        ('lang="en"', EN),
        ("lang = 'en'", EN),
        (r'lang = "say \"hi\" \\ \'"', Comparison(LANG, Operator.EQUAL, 'say "hi" \\ \'')),
        ("lang = 2020", Comparison(LANG, Operator.EQUAL, "2020")),
        ("lang != a-b.c/d_é*", Comparison(LANG, Operator.NOT_EQUAL, "a-b.c/d_é*")),
        ("year >= 2020", NEW),
        ("year < -1.5e3", Comparison(YEAR, Operator.LESS, -1500)),
        ("year > .5", Comparison(YEAR, Operator.GREATER, 0.5)),
        ("page <= 3", Comparison(PAGE, Operator.LESS_EQUAL, 3)),
        ("draft = true", Comparison(DRAFT, Operator.EQUAL, True)),
        ("draft != false", Comparison(DRAFT, Operator.NOT_EQUAL, False)),
        ('team:"infra"', INFRA),
        ("team : infra", INFRA),
        ("year:*", Present(YEAR)),
        ("lang = en AND year >= 2020", All((EN, NEW))),
        ("lang = en OR year >= 2020", Any((EN, NEW))),
        ("lang = en AND (year >= 2020 OR team:infra)", All((EN, Any((NEW, INFRA))))),
        ("lang = en AND year >= 2020 OR team:infra", All((EN, Any((NEW, INFRA))))),
        ("(lang = en AND year >= 2020) OR team:infra", Any((All((EN, NEW)), INFRA))),
        ("NOT lang = en", Comparison(LANG, Operator.NOT_EQUAL, "en")),
        ("-year >= 2020", Comparison(YEAR, Operator.LESS, 2020)),
        ("NOT year:*", Present(YEAR, negated=True)),
        ("NOT (lang = en AND team:infra)", Any((negate(EN), Contains(TEAM, "infra", negated=True)))),
        ("NOT (lang = en OR NOT year >= 2020)", All((negate(EN), NEW))),
    ],
)
def test_filters_mean(text: str, condition: Condition | None) -> None:
    """OR binds closer than AND, NOT moves down to the comparisons, values take the field's type."""
    assert parse(text, FIELDS) == condition


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("lang", 4, "comparator"),
        ("lang =", 6, "value"),
        ("= en", 0, "field's name"),
        ("lang == en", 6, "value"),
        ("lang = en year = 2", 10, "AND, OR or the end"),
        ("lang = en and year = 2", 10, "AND, OR or the end"),
        ("lang = en AND", 13, "field's name"),
        ("(lang = en", 10, "expected )"),
        ("lang = en)", 9, "AND, OR or the end"),
        ("NOT NOT lang = en", 4, "field's name"),
        ('lang = "en', 7, "does not end"),
        ("lang = \\", 7, "not expected"),
        ("tenant = acme", 0, "'tenant' may not be named"),
        ("collection = kb", 0, "may not be named"),
        ("metadata = 1", 0, "may not be named"),
        ("year = new", 7, "year is a number"),
        ('year = "2020"', 7, "year is a number"),
        ("year = nan", 7, "year is a number"),
        ("year = 1e999", 7, "year is a number"),
        ("year = 1_000", 7, "year is a number"),
        ("year = ٣", 7, "year is a number"),
        ("page = 2.5", 7, "page is a whole number"),
        ("draft = yes", 8, "draft is true or false"),
        ("draft < true", 6, "by = or !="),
        ("team = infra", 5, "team is a list"),
        ("lang:en", 4, "no list"),
        ("title:*", 5, "no list"),
        ('lang = -"en"', 8, "value"),
        ("lang = en\x00", 9, "control"),
        ("(" * (MAX_DEPTH + 1), MAX_DEPTH, "deep"),
        (" OR ".join(["lang = en"] * (MAX_COMPARISONS + 1)), 13 * MAX_COMPARISONS, "comparisons"),
    ],
)
def test_what_is_no_filter_is_told_with_its_position(text: str, position: int, words: str) -> None:
    """INVALID_FILTER, a violation of `filter`, and where and what is wrong."""
    with pytest.raises(InvalidArgument) as caught:
        parse(text, FIELDS)
    assert caught.value.reason == "INVALID_FILTER"
    assert caught.value.metadata["position"] == str(position)
    (violation,) = caught.value.violations
    assert violation.field == "filter"
    assert words in violation.description


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from(["lang", "year", "team", "=", ":", "(", ")", "AND", "OR", "NOT", "-", '"x"', "1"])).map(
        " ".join
    )
)
def test_any_text_is_a_filter_or_an_invalid_one(text: str) -> None:
    """No text raises anything else."""
    try:
        parse(text, FIELDS)
    except InvalidArgument as error:
        refused = error
    else:
        return
    assert refused.reason == "INVALID_FILTER"
    assert 0 <= int(refused.metadata["position"]) <= len(text)


@given(
    st.recursive(
        st.sampled_from([EN, NEW, INFRA, Present(YEAR)]),
        lambda parts: st.builds(All, st.tuples(parts, parts)) | st.builds(Any, st.tuples(parts, parts)),
    )
)
def test_negating_twice_changes_nothing(condition: Condition) -> None:
    """Each condition is its opposite's opposite."""
    assert negate(condition) != condition
    assert negate(negate(condition)) == condition
