"""The markers by which an answer names the passages that it rests on."""

import re

_NUMBER = r"\d{1,4}(?:\s?[-–]\s?\d{1,4})?"  # noqa: RUF001 - models write ranges so
_NUMBERS = rf"{_NUMBER}(?:\s?[,;，、；]\s?{_NUMBER}){{0,7}}"
# `[1]`; as some models write, `[1, 2]`, `[1-3]`, `[^1]`, `【1】` or `【1†source】`.
MARKER = re.compile(rf"[\[【［]\^?\s?({_NUMBERS})\s?(?:†[^\]】］\n]{{0,24}})?[\]】］]")  # noqa: RUF001
ANY_MARKER = re.sub(r"\((?!\?)", "(?:", MARKER.pattern)
"""The pattern without its group, to be part of others."""
MARKER_ENDS = frozenset("]】］")  # noqa: RUF001
# Bounded, so that only the end of a text can hold half a marker.
MAX_MARKER_CHARS = 160
HALF_MARKER = re.compile(
    rf"[\[【［][\^\s\d,;，、；–-]{{0,{MAX_MARKER_CHARS}}}(?:†[^\]】］\n]{{0,24}})?\Z"  # noqa: RUF001
)
# No answer has more passages; a text full of `[1-9999]` would be taken apart for seconds.
_MAX_RANGE = 100
FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_TICKS = re.compile(r"`+")


def numbers_of(marker: re.Match[str]) -> list[int]:
    """The numbers that the marker names, each once."""
    found: dict[int, None] = {}
    for part in re.split(r"[,;，、；]", marker[1]):
        first, *last = (int(number) for number in re.split(r"[-–]", part))  # noqa: RUF001
        end = min(last[0], first + _MAX_RANGE) if last else first
        found.update(dict.fromkeys(range(first, end + 1)))
    return list(found)


def in_code(text: str, place: int) -> bool:
    """Whether Markdown takes the place for code, as far as what stands before it says."""
    if "`" not in text and "~~~" not in text:
        return False
    return in_fence(text, place) or _in_span(text[text.rfind("\n", 0, place) + 1 : place])


def _in_span(line: str) -> bool:
    """Whether a code span is open at the end of the line: so many ticks open it, as many close it."""
    opened = ""
    for ticks in _TICKS.findall(FENCE.sub("", line)):
        opened = "" if ticks == opened else opened or ticks
    return bool(opened)


def in_fence(text: str, place: int) -> bool:
    """Whether a block of code is open at the place."""
    return len(FENCE.findall(text, 0, place)) % 2 == 1
