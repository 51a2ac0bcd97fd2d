"""The tokens of a filter."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto


class FilterError(ValueError):
    """The filter is wrong at a position, in code points from 0; the words are for the caller."""

    def __init__(self, description: str, position: int) -> None:
        super().__init__(description)
        self.position = position


class Kind(Enum):
    """What a token is."""

    OPEN = auto()
    CLOSE = auto()
    COMPARATOR = auto()
    MINUS = auto()
    QUOTED = auto()
    WORD = auto()
    TEXT = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """A token: its text, for a quoted one what the quotes hold, and where it begins."""

    kind: Kind
    text: str
    position: int


_WORDS = ("AND", "OR", "NOT")
_TOKEN = re.compile(
    r"""
    (?P<OPEN>\() | (?P<CLOSE>\))
    | (?P<COMPARATOR><=|>=|!=|=|<|>|:)
    | (?P<MINUS>-)
    | (?P<QUOTED>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<TEXT>[^\s()<>=!:"'\\-][^\s()<>=!:"'\\]*)
    """,
    re.VERBOSE | re.DOTALL,
)
_SPACE = re.compile(r"\s*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
# Control characters, which no index takes in a literal alike; tab and line ends are taken.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def tokenize(text: str) -> list[Token]:
    """The tokens, END last; raises FilterError for what is none, also for a text that does not end."""
    return list(_tokens(text))


def _tokens(text: str) -> Iterator[Token]:
    if control := _CONTROL.search(text):
        raise FilterError("control characters are not taken", control.start())
    position = _end_of_space(text, 0)
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            quote = text[position] in "\"'"
            raise FilterError("the quoted text does not end" if quote else "not expected here", position)
        yield _token(Kind[str(found.lastgroup)], found.group(), position)
        position = _end_of_space(text, found.end())
    yield Token(Kind.END, "", len(text))


def _end_of_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _token(kind: Kind, text: str, position: int) -> Token:
    if kind is Kind.QUOTED:
        return Token(kind, _ESCAPE.sub(r"\1", text[1:-1]), position)
    if kind is Kind.TEXT and text in _WORDS:
        return Token(Kind.WORD, text, position)
    return Token(kind, text, position)
