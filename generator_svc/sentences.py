"""Cuts a passage into the pieces that read well as quotes: sentences, list items, a sentence with its code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# A lead such as "Run this command:" is quoted with the code or list below it up to this many characters.
_MAX_JOINED_CHARS = 500

_FENCE = re.compile(r"[ \t]*(```|~~~)")
_HEADING = re.compile(r"[ \t]{0,3}#{1,6}[ \t]+(?P<text>.*?)[ \t]*#*[ \t]*$")
_ITEM = re.compile(r"[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+")
# A short line by itself that ends like no statement: what is left of a heading, or of a question that was asked
# often, where its marks are gone.
_BARE_HEADING = re.compile(r"(?=.{1,80}$)\S+(?:\s+\S+){0,9}(?<![.!:;,…。！：；，])$")
_TABLE_ROW = re.compile(r"[ \t]*\|.*\|[ \t]*$")
# Horizontal rules, HTML comments and tags, template shortcodes: nothing that a reader reads.
_NOISE = re.compile(r"[ \t]*(?:[-=_*]{3,}|<!--.*?-->|</?[a-zA-Z][^>]*>|\{\{.*?\}\})*[ \t]*$")

_CLOSERS = "\"'’”»)\\]*_`"
_END = re.compile(
    # Scripts that put a space after a sentence: what follows must look like a beginning.
    rf"(?P<spaced>[.!?‽؟।።]+[{_CLOSERS}]*)(?=\s+[^\sa-z])"
    # Scripts that do not.
    r"|(?P<dense>[。！？｡]+[”’」』）】》]*)"
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[“\"'])(?:[A-Z]|[A-Za-z](?:\.[A-Za-z])+|Mr|Mrs|Ms|Dr|Prof|Rev|Gen|Col|Capt|Lt|Sgt|Sen|Rep|Gov|St|Jr|Sr"
    r"|vs|No|Nos|Vol|Fig|Figs|Eq|Sec|Ch|pp?|ca|cf|al|approx|est|Inc|Ltd|Corp|Co|Mt|Ft"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)$"
)


# The kinds of line that continue a block of each kind.
_GOES_ON = {"text": ("text",), "item": ("text",), "row": (), "code": ("code",)}


@dataclass(frozen=True, slots=True)
class Quote:
    """A piece of a passage, verbatim, and the heading that it stands under; `is_code` where it ends in a code block."""

    text: str
    heading: str = ""
    is_code: bool = False


@dataclass(slots=True)
class _Block:
    """Consecutive lines that belong together: `text`, `item`, `row` or `code`; offsets into the passage."""

    kind: str
    start: int
    end: int
    heading: str


def quotes(text: str) -> list[Quote]:
    """The quotes of a passage in its order, each a substring of it; headings are context, not quotes."""
    blocks = list(_blocks(text))
    found: list[Quote] = []
    place = 0
    while place < len(blocks):
        block = blocks[place]
        place += 1
        if block.kind == "code":
            continue
        spans = list(_sentences(text, block.start, block.end))
        if spans and text[spans[-1][0] : spans[-1][1]].endswith((":", "：")):
            joined, place = _joined(blocks, place, spans[-1][0])
            spans[-1] = (spans[-1][0], joined)
        found += [Quote(text[start:end], block.heading, is_code=_ends_in_code(text, end)) for start, end in spans]
    return found


def _joined(blocks: list[_Block], place: int, start: int) -> tuple[int, int]:
    """Where a lead that starts at `start` ends with the code block or the whole list below it, and the next block."""
    end, following = blocks[place - 1].end, place
    kind = blocks[place].kind if place < len(blocks) else ""
    while following < len(blocks) and kind in ("code", "item") and blocks[following].kind == kind:
        end, following = blocks[following].end, following + 1
        if kind == "code":
            break
    if end - start > _MAX_JOINED_CHARS:
        return blocks[place - 1].end, place
    return end, following


def _ends_in_code(text: str, end: int) -> bool:
    return text[:end].endswith(("```", "~~~"))


def _blocks(text: str) -> Iterator[_Block]:
    """The blocks of a passage of Markdown or plain text; headings and noise only part them."""
    block: _Block | None = None
    heading = ""
    for kind, start, end in _lines(text):
        if block and kind in _GOES_ON[block.kind]:
            block.end = end
            continue
        if block and kind == "gap" and _is_bare_heading(text, block):
            heading = text[block.start : block.end].strip()
        elif block:
            yield block
        if matched := _HEADING.match(text, start, end) if kind == "heading" else None:
            heading = matched["text"]
        block = None if kind in ("heading", "gap") else _Block(kind, start, end, heading)
    if block:
        yield block


def _is_bare_heading(text: str, block: _Block) -> bool:
    return block.kind == "text" and bool(_BARE_HEADING.match(text[block.start : block.end].strip()))


def _lines(text: str) -> Iterator[tuple[str, int, int]]:
    """Kind, start and end of each line; the fences of a code block are part of it, an item's marker is not."""
    fence, offset = "", 0
    for line in text.splitlines(keepends=True):
        start, offset = offset, offset + len(line)
        end = start + len(line.rstrip())
        mark = _FENCE.match(line)
        if fence:
            fence = "" if mark and mark[1] == fence else fence
            yield "code", start, end
        elif mark:
            fence = mark[1]
            yield "code", start, end
        elif marker := _ITEM.match(line):
            yield "item", start + marker.end(), end
        else:
            yield _kind(line.rstrip()), start, end


def _kind(line: str) -> str:
    if _NOISE.match(line):
        return "gap"
    if _HEADING.match(line):
        return "heading"
    return "row" if _TABLE_ROW.match(line) else "text"


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The spans of the sentences between two offsets, without the spaces around them."""
    begin = start
    for match in _END.finditer(text, start, end):
        if match["spaced"] and _is_abbreviation(text[begin : match.end()]):
            continue
        yield from _stripped(text, begin, match.end())
        begin = match.end()
    yield from _stripped(text, begin, end)


def _is_abbreviation(sentence: str) -> bool:
    return sentence.endswith(".") and bool(_ABBREVIATION.search(sentence[-16:-1]))


def _stripped(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    if piece.strip():
        yield start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
