"""Tables that a PDF's page draws with rules: their cells, and the words in each."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ingest_svc.parsing.pdf_words import HYPHEN, Box, PageWords, Word

# Points within which rules meet, or are one.
_TOUCH = 3.0
_MAX_RULES = 1500
# A cell with more text is a column of the page, framed.
_MAX_CELL_CHARS = 1500


@dataclass(frozen=True, slots=True)
class RuledTable:
    """The rows of cells, what they cover, and the size of their letters."""

    rows: list[list[str]]
    box: Box
    size: float


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules of one table: where they are, across and down, and the edges that they make."""

    across: list[Box]
    down: list[Box]
    ys: list[float]
    xs: list[float]

    @property
    def box(self) -> Box:
        return Box(self.xs[0], self.ys[0], self.xs[-1], self.ys[-1])


def ruled_tables(page: PageWords) -> tuple[list[RuledTable], list[Word]]:
    """The tables that rules draw on the page, and the words that are in none of them."""
    words = page.words
    tables = []
    for rules in _tables(page.rules):
        inside, outside = _parted(words, rules.box)
        table = _filled(rules, inside)
        if table is not None:
            tables.append(table)
            words = outside
    return tables, words


def _parted(words: Sequence[Word], box: Box) -> tuple[list[Word], list[Word]]:
    inside: list[Word] = []
    outside: list[Word] = []
    for word in words:
        x, y = word.box.middle
        (inside if box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1 else outside).append(word)
    return inside, outside


def _tables(rules: Sequence[Box]) -> list[_Rules]:
    """The rules in groups that touch, as far as they make two rows and two columns, the largest first."""
    if len(rules) > _MAX_RULES:
        return []
    across = [rule for rule in rules if rule.x1 - rule.x0 >= rule.height]
    down = [rule for rule in rules if rule.x1 - rule.x0 < rule.height]
    groups = [_rules(*group) for group in _touching(across, down)]
    large = [group for group in groups if len(group.xs) > 2 and len(group.ys) > 2]  # noqa: PLR2004 - two cells each way
    return sorted(large, key=lambda group: group.box.y0)


def _rules(across: list[Box], down: list[Box]) -> _Rules:
    ys = _merged([rule.middle[1] for rule in across])
    xs = _merged([rule.middle[0] for rule in down])
    return _Rules(across, down, ys, xs)


def _touching(across: Sequence[Box], down: Sequence[Box]) -> list[tuple[list[Box], list[Box]]]:
    """Groups of rules that meet each other, directly or by others."""
    leaders = list(range(len(across) + len(down)))

    def leader(place: int) -> int:
        while leaders[place] != place:
            leaders[place] = leaders[leaders[place]]
            place = leaders[place]
        return place

    for i, one in enumerate(across):
        for j, other in enumerate(down, len(across)):
            if _meet(one, other):
                leaders[leader(i)] = leader(j)
    groups: dict[int, tuple[list[Box], list[Box]]] = defaultdict(lambda: ([], []))
    for place, rule in enumerate([*across, *down]):
        groups[leader(place)][place >= len(across)].append(rule)
    return list(groups.values())


def _meet(one: Box, other: Box) -> bool:
    return (
        one.x0 <= other.x1 + _TOUCH
        and other.x0 <= one.x1 + _TOUCH
        and one.y0 <= other.y1 + _TOUCH
        and other.y0 <= one.y1 + _TOUCH
    )


def _merged(values: Sequence[float]) -> list[float]:
    """The values in order, those that are one to the eye once."""
    kept: list[float] = []
    for value in sorted(values):
        if not kept or value - kept[-1] > _TOUCH:
            kept.append(value)
    return kept


def _filled(rules: _Rules, words: Sequence[Word]) -> RuledTable | None:
    """The table with its words; none where they are not what cells hold."""
    cells: dict[tuple[int, int], list[Word]] = defaultdict(list)
    for word in words:
        cells[_cell(rules, word.box.middle)].append(word)
    if len(cells) < 3 or len({row for row, _ in cells}) < 2:  # noqa: PLR2004 - two cells are a frame with a line
        return None
    texts = {place: _text(inside) for place, inside in cells.items()}
    if max(map(len, texts.values())) > _MAX_CELL_CHARS:
        return None
    rows = [[texts.get((row, column), "") for column in range(len(rules.xs) - 1)] for row in range(len(rules.ys) - 1)]
    return RuledTable(rows, rules.box, max(word.font.size for word in words))


def _cell(rules: _Rules, point: tuple[float, float]) -> tuple[int, int]:
    """The row and the column of the cell at the point; of one that spans several, its first."""
    x, y = point
    row = min(max(bisect_right(rules.ys, y) - 1, 0), len(rules.ys) - 2)
    column = min(max(bisect_right(rules.xs, x) - 1, 0), len(rules.xs) - 2)
    while column > 0 and not any(_at(rule, rules.xs[column], y) for rule in rules.down):
        column -= 1
    while row > 0 and not any(_at(rule, x, rules.ys[row]) for rule in rules.across):
        row -= 1
    return row, column


def _at(rule: Box, x: float, y: float) -> bool:
    return rule.x0 - _TOUCH <= x <= rule.x1 + _TOUCH and rule.y0 - _TOUCH <= y <= rule.y1 + _TOUCH


def _text(words: Sequence[Word]) -> str:
    """The words of a cell, line by line."""
    lines: list[list[Word]] = []
    for word in sorted(words, key=lambda word: word.box.middle[1]):
        if not lines or word.box.middle[1] - lines[-1][0].box.middle[1] > word.box.height / 2:
            lines.append([])
        lines[-1].append(word)
    ordered = [word.text for line in lines for word in sorted(line, key=_place)]
    return " ".join(ordered).replace(f"{HYPHEN} ", "").replace(HYPHEN, "-")


def _place(word: Word) -> tuple[int, float]:
    """PDFium has the words of a line in the order that they are read in, to the left too."""
    return word.line, word.box.x0
