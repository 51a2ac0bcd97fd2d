"""Markers are found as models write them, and not in code."""

import pytest

from gateway.markers import HALF_MARKER, MARKER, in_code, numbers_of


@pytest.mark.parametrize(
    ("marker", "numbers"),
    [
        ("[1]", [1]),
        ("[ 12 ]", [12]),
        ("[1, 2;3、4]", [1, 2, 3, 4]),
        ("[2-4, 3]", [2, 3, 4]),
        ("[4-2]", []),
        ("[1-9999]", list(range(1, 102))),
        ("[^7]", [7]),
        ("【1】", [1]),
        ("【3†source】", [3]),
        ("［5］", [5]),  # noqa: RUF001
    ],
)
def test_marker_names_numbers(marker: str, numbers: list[int]) -> None:
    """Each once, in order."""
    found = MARKER.fullmatch(marker)
    assert found
    assert numbers_of(found) == numbers


@pytest.mark.parametrize("text", ["[]", "[x]", "[1", "1]", "[12345]", "(1)", "[1][", "[1\n\n2]", "[a1]"])
def test_other_brackets_are_no_markers(text: str) -> None:
    """Nor is what has more digits than any passage's number."""
    assert not MARKER.fullmatch(text)


@pytest.mark.parametrize(
    ("text", "half"), [("[", True), ("[1, ", True), ("【1†so", True), ("[a", False), ("[1]", False)]
)
def test_half_a_marker_is_told(text: str, half: bool) -> None:
    """What may still become one."""
    assert bool(HALF_MARKER.match(text)) is half


@pytest.mark.parametrize(
    ("before", "code"),
    [
        ("a", False),
        ("call `a", True),
        ("call `a` and ", False),
        ("``a`b`` ", False),
        ("x\n```py\na", True),
        ("x\n```py\na\n```\n", False),
        ("x\n  ~~~\na", True),
        ("one ` stray\nnext line ", False),
    ],
)
def test_code_is_told_by_what_stands_before(before: str, code: bool) -> None:
    """Blocks by their fences, spans by the marks in their line."""
    assert in_code(f"{before}[1]", len(before)) is code
