"""How like two texts are, character by character, when neither spaces nor the marks of Markdown and HTML count."""

import html
import re
import unicodedata

from selectolax.lexbor import LexborHTMLParser

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_IMAGE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?:[^()\s]|\([^()]*\))*(?:\s+\"[^\"]*\")?\)")
_RULE = re.compile(r"^[\s|:=*_-]*$", re.MULTILINE)
_FENCE = re.compile(r"^\s*(?:```|~~~).*$", re.MULTILINE)
_LINE_MARK = re.compile(r"^\s*(?:#{1,6}\s|>\s|(?:[-*+•]\s+)+(?:\[[ xX]\]\s)?)", re.MULTILINE)
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+.!|<>$-])")
_MARKS = re.compile(r"[`*_|]")
_SPACES = re.compile(r"\s+")


def similarity(found: str, expected: str) -> float:
    """Twice the characters in common, in order, by those of both texts, as `plain` has them: 1 where they are equal."""
    found, expected = plain(found), plain(expected)
    total = len(found) + len(expected)
    return 2 * _common(found, expected) / total if total else 1.0


def contains(text: str, part: str) -> bool:
    """Whether the text has the part, as `plain` has both."""
    return plain(part) in plain(text)


def plain(text: str) -> str:
    """The text's characters, composed alike, without spaces and without marks of Markdown; of links their text."""
    for pattern, kept in ((_COMMENT, ""), (_IMAGE, r"\1"), (_LINK, r"\1"), (_FENCE, ""), (_RULE, ""), (_LINE_MARK, "")):
        text = pattern.sub(kept, text)
    text = _MARKS.sub("", html.unescape(_ESCAPE.sub(r"\1", text)))
    return _SPACES.sub("", unicodedata.normalize("NFKC", text))


def text_of_html(page: str) -> str:
    """All text of a page of HTML, for an expected text that is given as one."""
    body = LexborHTMLParser(page).body
    return body.text(separator=" ") if body else ""


def _common(one: str, other: str) -> int:
    """The length of the longest common subsequence, by Hyyrö's bit-parallel algorithm (2004)."""
    places: dict[str, int] = {}
    for place, character in enumerate(one):
        places[character] = places.get(character, 0) | 1 << place
    ones = (1 << len(one)) - 1
    row = ones
    for character in other:
        matches = row & places.get(character, 0)
        row = (row + matches | row - matches) & ones
    return len(one) - row.bit_count()
