"""What requests name and page through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshkit import errors, names, pagination

DOCUMENT = "collections/{collection}/documents/{document}"


def test_parse() -> None:
    """A name gives its ids by the template's variables, and formatting them gives the name."""
    ids = {"collection": "handbook", "document": "leave.v2_a-b"}
    name = names.format(DOCUMENT, **ids)
    assert name == "collections/handbook/documents/leave.v2_a-b"
    assert names.parse(DOCUMENT, name, "name") == ids


@pytest.mark.parametrize(
    "name",
    [
        "",
        "collections/a",
        "collections/a/documents/",
        "collections//documents/b",
        "collections/a/documents/b/",
        "collections/a/documents/b\n",
        "collections/a/documents/../x",
        "collections/a/documents/..",
        "collections/a/documents/é",
        "collections/a b/documents/b",
        "collections/-a/documents/b",
        "/collections/a/documents/b",
        f"collections/{'a' * 64}/documents/b",
    ],
)
def test_parse_a_bad_name(name: str) -> None:
    """A name that is not of the form is INVALID_ARGUMENT and names the field that held it."""
    with pytest.raises(errors.InvalidArgument) as caught:
        names.parse(DOCUMENT, name, "document.name")
    assert caught.value.reason == "INVALID_FIELD"
    assert [violation.field for violation in caught.value.violations] == ["document.name"]


def test_format_a_bad_id() -> None:
    """An id that could not be read back makes no name."""
    with pytest.raises(ValueError, match="a/b"):
        names.format(DOCUMENT, collection="a/b", document="c")


@pytest.mark.parametrize(("requested", "size"), [(0, 50), (1, 1), (1000, 1000), (5000, 1000)])
def test_page_size(requested: int, size: int) -> None:
    """No size is the default, too large a size is the maximum."""
    assert pagination.page_size(requested) == size


def test_negative_page_size() -> None:
    """A negative size is INVALID_ARGUMENT."""
    with pytest.raises(errors.InvalidArgument, match="page_size"):
        pagination.page_size(-1)


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8")))
def test_token(cursor: str, scope: str) -> None:
    """A token gives its cursor back in its own scope and is refused in any other."""
    token = pagination.encode(cursor, scope)
    assert pagination.decode(token, scope) == cursor
    with pytest.raises(errors.InvalidArgument, match="INVALID_PAGE_TOKEN"):
        pagination.decode(token, scope + "x")


def test_empty_token() -> None:
    """The empty token is the first page."""
    assert pagination.decode("", "scope") == ""


@given(st.text(min_size=1))
def test_made_up_token(token: str) -> None:
    """A token that nobody issued is INVALID_ARGUMENT with its reason, whatever it is."""
    with pytest.raises(errors.InvalidArgument) as caught:
        pagination.decode(token, "scope")
    assert caught.value.reason == "INVALID_PAGE_TOKEN"
    assert caught.value.violations[0].field == "page_token"
