"""Pieces of text on a page, words that stand close together, and the rows that pieces make."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ingest_svc.parsing.pdf_tables import ruled_tables
from ingest_svc.parsing.pdf_words import Box, Font, PageWords, Word

# In sizes of the font: a wider gap parts pieces of a row.
_GAP = 0.5
# A piece whose middle is further from the row's than this share of its height stands in another row.
_SAME_ROW = 0.6
_MAX_MARK = 4
# The dots or lines that lead to a page's number, or wait for what is to be filled in.
_LEADERS = re.compile(r"(?:[.·…_] ?){6,}")
BULLETS = frozenset("•◦▪‣·●○■□\u2013\u2014-*➢✓►◆❖")
"""What stands before the items of a list without numbers."""


@dataclass(slots=True)
class Piece:
    """Words of one row that stand close together, and whether a space is after them; or a whole table."""

    text: str
    box: Box
    font: Font
    table: list[list[str]] | None = None
    spaced: bool = False

    @property
    def height(self) -> float:
        """That of a line; of a table that of its letters."""
        return self.font.size if self.table else self.box.height

    @property
    def middle(self) -> float:
        """Where its row is; a table is in that of its first line."""
        return self.box.y0 + self.height / 2


def pieces_of(page: PageWords) -> list[Piece]:
    """The page's tables that rules draw, and its words joined where they follow each other closely in a line."""
    tables, words = ruled_tables(page)
    pieces = [Piece("", table.box, Font(size=table.size), table.rows) for table in tables]
    run: list[Word] = []
    for word in words:
        if run and not _follows(run, word):
            pieces.append(_piece(run))
            run = []
        run.append(word)
    return [*pieces, _piece(run)] if run else pieces


def _follows(run: Sequence[Word], word: Word) -> bool:
    last = run[-1]
    if word.line != last.line or abs(word.box.middle[1] - last.box.middle[1]) > last.box.height:
        return False
    gap = max(word.box.x0 - last.box.x1, last.box.x0 - word.box.x1)
    limit = _GAP * max(last.font.size, word.font.size)
    # The gap after an item's mark is as wide as its writer likes.
    return gap <= limit or (len(run) == 1 and is_mark(last.text) and gap <= 4 * limit)


def is_mark(text: str) -> bool:
    """Whether the word is what list items begin with: a bullet, `1.`, `a)`, `(2)`."""
    if text in BULLETS:
        return True
    inner = text.strip("().")
    return inner != text and len(text) <= _MAX_MARK and inner.isalnum() and (inner.isdigit() or len(inner) == 1)


def _piece(run: Sequence[Word]) -> Piece:
    sizes = [word.font.size for word in run for _ in word.text]
    font = Font(
        size=statistics.median_low(sizes),
        bold=all(word.font.bold for word in run),
        monospaced=all(word.font.monospaced for word in run),
    )
    text = _LEADERS.sub("…", " ".join(word.text for word in run))
    return Piece(text, around([word.box for word in run]), font, None, run[-1].spaced)


def around(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of them."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return Box(min(x0), min(y0), max(x1), max(y1))


def rows_of(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """The pieces in rows from top to bottom, each from left to right, none above another in one row."""
    rows: list[list[Piece]] = []
    open_rows: list[list[Piece]] = []
    top = limit = 0.0
    for middle, piece in sorted(((piece.middle, piece) for piece in pieces), key=lambda placed: placed[0]):
        if not open_rows or middle - top > limit:
            rows += open_rows
            open_rows, top, limit = [], middle, _SAME_ROW * piece.height
        place = next((row for row in open_rows if _fits(row, piece)), None)
        if place is None:
            open_rows.append([piece])
        else:
            place.append(piece)
    rows += open_rows
    for row in rows:
        row.sort(key=lambda piece: piece.box.x0)
    return rows


def _fits(row: Sequence[Piece], piece: Piece) -> bool:
    return all(piece.box.x0 >= other.box.x1 - 1 or piece.box.x1 <= other.box.x0 + 1 for other in row)
