"""The order in which a page of words is read: lines of text, columns of them, and tables.

A page is a list of rows from top to bottom, each with the pieces of text that wide gaps part. Rows that follow each
other and have a gap in common stand in columns: of prose, which are read one after the other, or of a table.
"""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ingest_svc.parsing.pdf_pieces import Piece, around, pieces_of, rows_of
from ingest_svc.parsing.pdf_words import HYPHEN, Box, Font, PageWords

# Rows further apart than this many heights are not of one table or one set of columns.
_FAR = 3.5
# A line closer than this many heights above columns may be of one of them.
_NEAR = 2.0
# Fewer lines are neither a column nor a table, but chance.
_FEW_ROWS = 3
# Rows further apart than this many usual pitches are of two tables.
_WIDE_PITCH = 1.7
# Points; LaTeX sets columns 10 apart, tables have less.
_MIN_GUTTER = 4.0
_MAX_DEPTH = 6
_PROSE_WORDS = 4
_PROSE_SIGNS = 18
_PROSE_FILL = 0.6


@dataclass(slots=True)
class Line:
    """A line of text; `left` and `right` are the edges of its column, `spaced` tells of a space at its end."""

    text: str
    box: Box
    font: Font
    left: float
    right: float
    spaced: bool = False


@dataclass(slots=True)
class Grid:
    """A table: its rows of cells."""

    rows: list[list[str]]
    box: Box


@dataclass(slots=True)
class Prose:
    """A paragraph that is one already."""

    text: str


Part = Line | Grid | Prose
Interval = tuple[float, float]


def parts(page: PageWords) -> list[Part]:
    """What stands on the page, in the order in which it is read."""
    pieces = pieces_of(page)
    return list(_read(pieces, 0)) if pieces else []


class _Band:
    """Rows that follow each other, and the gaps between pieces that all of them leave free."""

    def __init__(self, row: list[Piece]) -> None:
        self.rows = [row]
        self._left, self._right = row[0].box.x0, row[-1].box.x1
        self._free = _free(row)
        self.gutters = self._inner(self._free)

    def take(self, row: list[Piece]) -> bool:
        """Add the row below, if it is near and leaves a gap of the band free; a row without gaps takes none."""
        if not self.gutters or _far(self.rows[-1], row):
            return False
        if not self._inner(_common(self._free, _free(row))):
            return False
        self.add(row)
        return True

    def add(self, row: list[Piece]) -> None:
        """Add the row below."""
        self.rows.append(row)
        self._left, self._right = min(self._left, row[0].box.x0), max(self._right, row[-1].box.x1)
        self._free = _common(self._free, _free(row))
        self.gutters = self._inner(self._free)

    def prepend(self, row: list[Piece]) -> bool:
        """Add the row above, if it is near and stands in one of the columns."""
        near = self.rows[0][0].box.y0 - row[0].box.y1 < _NEAR * row[0].box.height
        if len(row) > 1 or not near or not self._inner(_common(self._free, _free(row))):
            return False
        column = self.columns()[_column(row[0], self.gutters)]
        edge = min(piece.box.x0 for line in column for piece in line)
        if abs(row[0].box.x0 - edge) > _NEAR * row[0].font.size:
            return False
        self.rows.insert(0, row)
        self._free = _common(self._free, _free(row))
        self.gutters = self._inner(self._free)
        return True

    def cells(self) -> list[list[list[Piece]]]:
        """The pieces of each row in each column."""
        rows: list[list[list[Piece]]] = []
        for row in self.rows:
            cells: list[list[Piece]] = [[] for _ in range(len(self.gutters) + 1)]
            for piece in row:
                cells[_column(piece, self.gutters)].append(piece)
            rows.append(cells)
        return rows

    def columns(self) -> list[list[list[Piece]]]:
        """The pieces of each column in each row."""
        return [list(column) for column in zip(*self.cells(), strict=True)]

    def _inner(self, free: Sequence[Interval]) -> list[Interval]:
        return [(x0, x1) for x0, x1 in free if self._left < x0 and x1 < self._right]


def _far(above: Sequence[Piece], below: Sequence[Piece]) -> bool:
    space = below[0].box.y0 - max(piece.box.y1 for piece in above)
    return space > _FAR * max(piece.height for piece in below)


def _free(row: Sequence[Piece]) -> list[Interval]:
    """The stretches between the row's pieces, and the endless ones beside it."""
    edges = [float("-inf"), *(edge for piece in row for edge in (piece.box.x0, piece.box.x1)), float("inf")]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _common(one: Sequence[Interval], other: Sequence[Interval]) -> list[Interval]:
    """Where both are free, as far as that is wide enough for a gutter."""
    found, i, j = [], 0, 0
    while i < len(one) and j < len(other):
        x0, x1 = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if x1 - x0 > _MIN_GUTTER:
            found.append((x0, x1))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return found


def _column(piece: Piece, gutters: Sequence[Interval]) -> int:
    middle = piece.box.middle[0]
    return sum(middle > x1 for _, x1 in gutters)


def _read(pieces: Sequence[Piece], depth: int) -> Iterator[Part]:
    left, _, right, _ = around([piece.box for piece in pieces])
    for band in _bands(rows_of(pieces)):
        split = _prose_gutter(band) if depth < _MAX_DEPTH else None
        if split is not None:
            yield from _columns(band, split, depth)
        else:
            yield from _plain(band, left, right)


def _bands(rows: Sequence[list[Piece]]) -> list[_Band]:
    """The rows in bands as long as they have a gap in common; a single piece begins none."""
    bands: list[_Band] = []
    for row in rows:
        if not bands or not bands[-1].take(row):
            bands.append(_Band(row))
    for place in range(len(bands) - 1, 0, -1):
        above, band = bands[place - 1], bands[place]
        if len(above.rows) == 1 and _prose_gutter(band) is not None and band.prepend(above.rows[0]):
            del bands[place - 1]
    return bands


def _prose_gutter(band: _Band) -> Interval | None:
    """The gap between two columns of prose, the widest where there are several."""
    if len(band.rows) < _FEW_ROWS:
        return None
    columns = [_is_prose(column) for column in band.columns()]
    between = [
        gutter for place, gutter in enumerate(band.gutters) if any(columns[: place + 1]) and any(columns[place + 1 :])
    ]
    return max(between, key=lambda gutter: gutter[1] - gutter[0]) if between else None


def _is_prose(column: Sequence[Sequence[Piece]]) -> bool:
    """Whether most lines of the column are filled with words; tables are read like prose."""
    lines = [(row[-1].box.x1 - row[0].box.x0, " ".join(piece.text for piece in row)) for row in column if row]
    if any(piece.table for row in column for piece in row):
        return True
    if len(lines) < _FEW_ROWS:
        return False
    widths = [width for width, _ in lines]
    signs = statistics.median(len(text) for _, text in lines)
    words = statistics.median(text.count(" ") + 1 for _, text in lines)
    filled = statistics.median(widths) > _PROSE_FILL * max(widths)
    return filled and signs >= _PROSE_SIGNS and (words >= _PROSE_WORDS or signs > words * _PROSE_SIGNS / 2)


def _columns(band: _Band, gutter: Interval, depth: int) -> Iterator[Part]:
    sides: list[list[Piece]] = [[], []]
    for row in band.rows:
        for piece in row:
            sides[_column(piece, [gutter])].append(piece)
    if _runs_leftwards(piece.text for side in sides for piece in side):
        sides.reverse()
    for side in sides:
        if side:
            yield from _read(side, depth + 1)


def _runs_leftwards(texts: Iterable[str]) -> bool:
    """Whether most letters are Hebrew or Arabic."""
    letters = rightmost = 0
    for text in texts:
        if not text.isascii():
            rightmost += sum("\u0590" <= sign <= "\u08ff" or "\ufb1d" <= sign <= "\ufefc" for sign in text)
        letters += len(text)
    return rightmost * 3 > letters


def _plain(band: _Band, left: float, right: float) -> Iterator[Part]:
    """A band that is no prose in columns: tables, and lines between them."""
    for rows in _sections(band.rows):
        section = _Band(rows[0])
        for row in rows[1:]:
            section.add(row)
        if _is_table(section):
            yield from _table(section, left, right)
        else:
            for row in rows:
                yield from _line(row, left, right)


def _sections(rows: Sequence[list[Piece]]) -> Iterator[list[list[Piece]]]:
    """The rows parted where a line alone looks like the title of what follows, or a wide space is."""
    pitches = [below[0].middle - above[0].middle for above, below in pairwise(rows)]
    usual = statistics.median(pitches) if pitches else 0.0
    section: list[list[Piece]] = []
    for place, row in enumerate(rows):
        wide = place > 0 and pitches[place - 1] > _WIDE_PITCH * usual
        if section and (wide or _is_title(row, rows[0])):
            yield section
            section = []
        section.append(row)
        if _is_title(row, rows[0]):
            yield section
            section = []
    if section:
        yield section


def _is_title(row: Sequence[Piece], first: Sequence[Piece]) -> bool:
    return len(row) == 1 and row[0].font.bold and row[0].box.x0 <= first[0].box.x0 + row[0].font.size


def _is_table(band: _Band) -> bool:
    if not band.gutters or any(piece.table for row in band.rows for piece in row):
        return False
    full = sum(len(row) > 1 for row in band.rows)
    return full >= _FEW_ROWS or (full == 2 and len(band.gutters) > 1)  # noqa: PLR2004 - two rows of two are chance


def _table(band: _Band, left: float, right: float) -> Iterator[Part]:
    """The table, and the lines below it that only seemed to be of its first column."""
    last = max(place for place, row in enumerate(band.rows) if len(row) > 1) + 1
    cells = [[" ".join(piece.text for piece in cell).replace(HYPHEN, "-") for cell in row] for row in band.cells()]
    if _runs_leftwards(text for row in cells for text in row):
        cells = [row[::-1] for row in cells]
    yield Grid(cells[:last], around([piece.box for row in band.rows[:last] for piece in row]))
    for row in band.rows[last:]:
        yield from _line(row, left, right)


def _line(row: Sequence[Piece], left: float, right: float) -> Iterator[Part]:
    tables = [piece for piece in row if piece.table is not None]
    yield from (Grid(piece.table or [], piece.box) for piece in tables)
    pieces = [piece for piece in row if piece.table is None]
    if not pieces:
        return
    if len(pieces) > 1 and _runs_leftwards(piece.text for piece in pieces):
        pieces.reverse()
    longest = max(pieces, key=lambda piece: len(piece.text))
    font = Font(
        size=longest.font.size,
        bold=all(piece.font.bold for piece in pieces),
        monospaced=all(piece.font.monospaced for piece in pieces),
    )
    text = " ".join(piece.text for piece in pieces)
    yield Line(text, around([piece.box for piece in pieces]), font, left, right, pieces[-1].spaced)
