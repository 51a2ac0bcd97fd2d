"""From the lines of all pages to blocks: headings, paragraphs, list items, code and tables, without running titles."""

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from ingest_svc.extract import BlockKind, Writer
from ingest_svc.parsing.pdf_layout import Grid, Line, Part, Prose
from ingest_svc.parsing.pdf_pieces import BULLETS, is_mark
from ingest_svc.parsing.pdf_words import HYPHEN

_DIGITS = re.compile(r"\d+")
# How many lines from a page's edge a running title may be.
_EDGE_LINES = 3
# In heights of a line: less space does not part it from the text.
_EDGE_SPACE = 0.6
_FEW_PAGES = 3
_MAX_HEADING_CHARS = 160
_MAX_HEADING_LINES = 3
_LARGER = 1.08
_LEVELS = 6
_SENTENCE_ENDS = (".", "!", "?", ":", ";", "。", "！", "？", "：", "…", "”", '."')
_HANGUL = re.compile(r"[\uac00-\ud7a3]")
# Where so many of the Hangul lines end in a space, the others end within a word.
_SPACED_SHARE = 0.15
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]")
# In usual pitches of such lines: further apart they are two paragraphs.
_PARAGRAPH_PITCH = 1.3
_INDENT = 0.7
# In sizes of the font: what stands further in is beside something, not the beginning of a paragraph.
_MAX_INDENT = 6.0
# The share of its column that the last line of a paragraph may leave free and still be full.
_FULL = 0.15
# A longer paragraph ends with its column: its page would say little.
_MAX_CARRIED_LINES = 30


def write(pages: Sequence[Sequence[Part]], writer: Writer) -> None:
    """Write the pages' blocks, each with the page that it begins on."""
    running = _running(pages)
    lines = [part for page in pages for part in page if isinstance(part, Line) and id(part) not in running]
    paragraphs = _Paragraphs(writer, _Styles(lines))
    for number, page in enumerate(pages, 1):
        paragraphs.begin_page(number, page)
        for part in page:
            if isinstance(part, Grid):
                paragraphs.table(part)
            elif isinstance(part, Prose):
                paragraphs.prose(part)
            elif id(part) not in running:
                paragraphs.line(part)
    paragraphs.end()


def _running(pages: Sequence[Sequence[Part]]) -> set[int]:
    """The ids of lines that stand apart at the edge of several pages, alike but for numbers: titles, page numbers."""
    found: dict[tuple[bool, str], dict[int, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for number, page in enumerate(pages):
        lines = sorted((part for part in page if isinstance(part, Line)), key=lambda line: line.box.y0)
        edges = ((True, _edge(lines)), (False, _edge(lines[::-1])))
        if sum(len(edge) for _, edge in edges) >= len(page):
            continue
        for top, edge in edges:
            for line in edge:
                found[top, _DIGITS.sub("#", line.text)][number].append(line)
    enough = min(_FEW_PAGES, max(2, len(pages)))
    repeated = (by_page for by_page in found.values() if len(by_page) >= enough)
    return {id(line) for by_page in repeated for lines in by_page.values() for line in lines}


def _edge(lines: Sequence[Line]) -> Sequence[Line]:
    """The first lines up to a wide space; none where there is none soon."""
    for place, (line, inner) in enumerate(pairwise(lines[: _EDGE_LINES + 1]), 1):
        space = max(inner.box.y0 - line.box.y1, line.box.y0 - inner.box.y1)
        if space > _EDGE_SPACE * max(line.box.height, inner.box.height):
            return lines[:place]
    return ()


class _Styles:
    """What fonts mean in a document: the body's, and the levels of headings; made once from all its lines."""

    def __init__(self, lines: Sequence[Line]) -> None:
        sizes: Counter[float] = Counter()
        bold = monospaced = total = 0
        for line in lines:
            length = len(line.text)
            sizes[line.font.size] += length
            bold += length * line.font.bold
            monospaced += length * line.font.monospaced
            total += length
        self.body = sizes.most_common(1)[0][0] if sizes else 0.0
        self._bold_is_rare = bold * 2 < total
        self._code_is_rare = monospaced * 2 < total
        hangul = [line.spaced for line in lines if _HANGUL.match(line.text[-1])]
        self.parts_words = sum(hangul) > _SPACED_SHARE * len(hangul)
        larger = sorted({_step(line.font.size) for line in lines if self._is_larger(line)}, reverse=True)
        self._levels = {size: min(level, _LEVELS) for level, size in enumerate(larger, 1)}

    def level(self, line: Line) -> int:
        """The level of the heading that the line is, 0 for none."""
        if len(line.text) > _MAX_HEADING_CHARS or not any(sign.isalpha() for sign in line.text):
            return 0
        if self._is_larger(line):
            return self._levels.get(_step(line.font.size), _LEVELS)
        bold = line.font.bold and self._bold_is_rare and line.font.size >= self.body
        return min(len(self._levels) + 1, _LEVELS) if bold and not line.text.endswith((".", ",", ";")) else 0

    def is_code(self, line: Line) -> bool:
        return line.font.monospaced and self._code_is_rare

    def _is_larger(self, line: Line) -> bool:
        return line.font.size > self.body * _LARGER + 0.25


def _step(size: float) -> float:
    return round(size * 2) / 2


class _Paragraphs:
    """Joins lines to blocks and writes them; lives for one document, in which it is fed every line in order."""

    def __init__(self, writer: Writer, styles: _Styles) -> None:
        self._writer = writer
        self._styles = styles
        self._lines: list[Line] = []
        self._level = 0
        self._page = self._first_page = 0
        self._pitches: Mapping[float, float] = {}

    def begin_page(self, number: int, page: Sequence[Part]) -> None:
        self._page = number
        self._pitches = _pitches([part for part in page if isinstance(part, Line)])

    def table(self, grid: Grid) -> None:
        self.end()
        self._writer.page = self._page
        self._writer.table(grid.rows)

    def prose(self, prose: Prose) -> None:
        self.end()
        self._writer.page = self._page
        self._writer.block(prose.text)

    def line(self, line: Line) -> None:
        level = 0 if self._lines and not self._level and self._goes_on(line) else self._styles.level(line)
        joins = self._lines and level == self._level and (self._is_heading_of(line) if level else self._goes_on(line))
        if not joins:
            self.end()
            self._level, self._first_page = level, self._page
        self._lines.append(line)

    def end(self) -> None:
        """Write what was joined so far."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        self._writer.page = self._first_page
        if self._styles.is_code(lines[0]):
            self._writer.block(_code(lines), BlockKind.CODE)
            return
        text = _joined(lines, parts_words=self._styles.parts_words)
        if self._level and len(lines) <= _MAX_HEADING_LINES:
            self._writer.heading(self._level, text)
            return
        mark, _, rest = text.partition(" ")
        if rest and is_mark(mark):
            self._writer.block(f"{'-' if mark in BULLETS else mark} {rest}", BlockKind.ITEM)
        else:
            self._writer.block(text)

    def _is_heading_of(self, line: Line) -> bool:
        last = self._lines[-1]
        near = 0 < line.box.middle[1] - last.box.middle[1] < 2 * last.font.size
        return near and self._page == self._first_page and not is_mark(line.text.partition(" ")[0])

    def _goes_on(self, line: Line) -> bool:
        """Whether the line is of the paragraph so far."""
        last = self._lines[-1]
        if self._styles.is_code(line) != self._styles.is_code(last):
            return False
        if abs(line.font.size - last.font.size) > 0.1 * last.font.size or is_mark(line.text.partition(" ")[0]):
            return False
        if self._page != self._first_page or (line.left, line.right) != (last.left, last.right):
            return self._goes_over(line)
        pitch = line.box.middle[1] - last.box.middle[1]
        if not 0 < pitch <= _PARAGRAPH_PITCH * self._pitches.get(_step(line.font.size), 2 * line.font.size):
            return False
        if self._styles.is_code(line):
            return True
        indented = _INDENT * line.font.size < line.box.x0 - line.left < _MAX_INDENT * line.font.size
        begins = indented and last.box.x0 - last.left < _INDENT * last.font.size and not _is_item(self._lines[0])
        ended = last.text.endswith(_SENTENCE_ENDS) and not _is_full(last)
        dedented = _is_item(self._lines[0]) and line.box.x0 < self._lines[0].box.x0 - 1
        return not (begins or ended or dedented or (line.font.bold != last.font.bold and self._styles.level(line)))

    def _goes_over(self, line: Line) -> bool:
        """Whether a paragraph at a column's end goes on at the next one's beginning."""
        last = self._lines[-1]
        whole = not _is_full(last) or last.text.endswith(_SENTENCE_ENDS) or len(self._lines) > _MAX_CARRIED_LINES
        if whole or self._level or self._styles.is_code(line):
            return False
        indented = line.box.x0 - line.left > _INDENT * line.font.size
        first = line.text[0]
        return not indented and (last.text.endswith(HYPHEN) or not (first.isupper() or first.isdigit()))


def _pitches(lines: Sequence[Line]) -> dict[float, float]:
    """The usual distance of lines that follow each other, by their size in half points."""
    found: dict[float, list[float]] = defaultdict(list)
    for above, below in pairwise(lines):
        pitch = below.box.middle[1] - above.box.middle[1]
        if 0 < pitch < 3 * below.font.size and above.left == below.left:
            found[_step(below.font.size)].append(pitch)
    return {size: statistics.median_low(pitches) for size, pitches in found.items()}


def _is_item(line: Line) -> bool:
    return is_mark(line.text.partition(" ")[0])


def _is_full(line: Line) -> bool:
    return line.right - line.box.x1 <= _FULL * (line.right - line.left)


def _joined(lines: Sequence[Line], *, parts_words: bool) -> str:
    """The text of the lines, words that a line's end broke joined again: Hangul too where lines may end within one."""
    text = lines[0].text
    for last, line in pairwise(lines):
        if text.endswith(HYPHEN):
            text = text[:-1] + line.text
            continue
        signs = _HANGUL if parts_words and not last.spaced else _UNSPACED
        text += ("" if signs.match(text[-1]) and signs.match(line.text[0]) else " ") + line.text
    return (f"{text[:-1]}-" if text.endswith(HYPHEN) else text).replace(HYPHEN, "")


def _code(lines: Sequence[Line]) -> str:
    """The lines with their indentation, in widths of a letter."""
    left = min(line.box.x0 for line in lines)
    width = max((lines[0].box.x1 - lines[0].box.x0) / max(len(lines[0].text), 1), 1.0)
    return "\n".join(" " * round((line.box.x0 - left) / width) + line.text.replace(HYPHEN, "-") for line in lines)
