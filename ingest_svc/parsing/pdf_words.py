"""The words of a PDF's page where they stand, and the straight rules that are drawn on it."""

import ctypes
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import pypdfium2
from pypdfium2 import raw

# A word ends at a space or at PDFium's marks of a hyphen that only breaks a word at a line's end.
_WORDS = re.compile("[^\\s\x02\ufffe]+[\x02\ufffe]?")
_BROKEN = re.compile("[\x02\ufffe\xad]$")
_BOLD = re.compile(r"bold|black|heavy|demi|cmbx|cmssbx", re.IGNORECASE)
_MONOSPACED = re.compile(r"mono|courier|consol|menlo|cmtt|typewriter", re.IGNORECASE)
_BOLD_WEIGHT = 600
_FORCE_BOLD = 1 << 18
_BEYOND_BMP = re.compile("[\U00010000-\U0010ffff]")
# Stands for the second half of a character, and is removed from the word again.
_FILLER = "\x01"
_MAX_PATHS = 5000
_MAX_SEGMENTS = 500
# Points: what is thinner is a line, not an area.
_THIN = 2.5
HYPHEN = "\xad"
"""Stands at the end of a word that goes on in the next line."""


@dataclass(frozen=True, slots=True)
class Font:
    """How a word is set: size in points, and which way it runs in quarter turns, -1 for none of them."""

    size: float
    bold: bool = False
    monospaced: bool = False
    turn: int = 0


class Box(NamedTuple):
    """A rectangle in points, x to the right and y downwards."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def middle(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    @property
    def height(self) -> float:
        return self.y1 - self.y0


class Word(NamedTuple):
    """Characters without a space between them, and whether one follows; `line` numbers lines as PDFium reads them."""

    text: str
    box: Box
    font: Font
    line: int = 0
    spaced: bool = False


@dataclass(frozen=True, slots=True)
class PageWords:
    """The words that run one way, upright, and the rules in the same coordinates."""

    words: list[Word]
    rules: list[Box]


def read_page(page: pypdfium2.PdfPage) -> list[PageWords]:
    """The page's words in PDFium's order, grouped by the way they run: that of the most words first."""
    text_page = page.get_textpage()
    try:
        words = list(_words(text_page))
    finally:
        text_page.close()
    turns = [turn for turn, _ in Counter(word.font.turn for word in words).most_common()]
    rules = list(_rules(page)) if words else []
    return [
        PageWords(
            [_upright_word(word, turn) for word in words if word.font.turn == turn],
            [_upright(rule, turn) for rule in rules] if place == 0 else [],
        )
        for place, turn in enumerate(turns)
    ]


def _upright_word(word: Word, turn: int) -> Word:
    return word._replace(box=_upright(word.box, turn)) if turn > 0 else word


def _words(text_page: pypdfium2.PdfTextPage) -> Iterator[Word]:
    text = _text(text_page, text_page.count_chars())
    # The raw handle: these calls are most of a page's time.
    handle, rectangle = text_page.raw, raw.FS_RECTF()
    fonts: dict[int, Font] = {}
    line = last = 0
    for found in _WORDS.finditer(text):
        start, end = found.span()
        line += text.count("\n", last, start) + text.count("\x02", last, start)
        last = start
        shape = ctypes.addressof(raw.FPDFText_GetTextObject(handle, start).contents)
        font = fonts.get(shape) or fonts.setdefault(shape, _font(handle, start))
        written = _BROKEN.sub(HYPHEN, found[0]).replace(_FILLER, "")
        box = _box(handle, start, max(start, end - 1 - written.endswith(HYPHEN)), rectangle)
        yield Word(written, box, font, line, text[end : end + 1] == " ")


def _text(text_page: pypdfium2.PdfTextPage, count: int) -> str:
    """The page's text with a character at each of PDFium's indices, which count in units of UTF-16."""
    buffer = ctypes.create_string_buffer(2 * count + 2)
    written = raw.FPDFText_GetText(text_page, 0, count, ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort)))
    text = buffer.raw[: 2 * max(0, written - 1)].decode("utf-16-le", "replace")
    return _BEYOND_BMP.sub(rf"\g<0>{_FILLER}", text).ljust(count)


def _box(text_page: Any, first: int, last: int, rectangle: Any) -> Box:
    """The box from the first character to the last one."""
    raw.FPDFText_GetLooseCharBox(text_page, first, rectangle)
    left, top, right, bottom = rectangle.left, -rectangle.top, rectangle.right, -rectangle.bottom
    if last != first:
        raw.FPDFText_GetLooseCharBox(text_page, last, rectangle)
        left, right = min(left, rectangle.left), max(right, rectangle.right)
        top, bottom = min(top, -rectangle.top), max(bottom, -rectangle.bottom)
    return Box(left, top, right, bottom)


def _font(text_page: Any, index: int) -> Font:
    matrix = raw.FS_MATRIX()
    raw.FPDFText_GetMatrix(text_page, index, matrix)
    name, flags = ctypes.create_string_buffer(128), ctypes.c_int()
    raw.FPDFText_GetFontInfo(text_page, index, name, len(name), flags)
    face = name.value.decode("utf-8", "replace")
    bold = bool(_BOLD.search(face)) or raw.FPDFText_GetFontWeight(text_page, index) >= _BOLD_WEIGHT
    quarters = math.atan2(matrix.b, matrix.a) / (math.pi / 2)
    turn = round(quarters) % 4 if abs(quarters - round(quarters)) < 0.1 else -1  # noqa: PLR2004 - nine degrees
    size = raw.FPDFText_GetFontSize(text_page, index) * (math.hypot(matrix.c, matrix.d) or 1)
    return Font(
        size=round(size, 1) or 1.0,
        bold=bold or bool(flags.value & _FORCE_BOLD),
        monospaced=bool(flags.value & 1 or _MONOSPACED.search(face)),
        turn=turn,
    )


def _rules(page: pypdfium2.PdfPage) -> Iterator[Box]:
    """The page's horizontal and vertical lines and edges of rectangles; none of a page that is a drawing."""
    count = raw.FPDFPage_CountObjects(page)
    if count > _MAX_PATHS:
        return
    for place in range(count):
        shape = raw.FPDFPage_GetObject(page, place)
        if raw.FPDFPageObj_GetType(shape) == raw.FPDF_PAGEOBJ_PATH:
            yield from _edges(shape)


def _edges(shape: Any) -> Iterator[Box]:
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    raw.FPDFPageObj_GetBounds(shape, left, bottom, right, top)
    box = Box(left.value, -top.value, right.value, -bottom.value)
    if _is_rule(box):
        yield box
    elif (count := raw.FPDFPath_CountSegments(shape)) <= _MAX_SEGMENTS:
        points = list(_points(shape, count))
        for (x0, y0, _), (x1, y1, drawn) in pairwise(points):
            edge = _corners(x0, y0, x1, y1)
            if drawn and _is_rule(edge):
                yield edge


def _points(shape: Any, count: int) -> Iterator[tuple[float, float, bool]]:
    """The path's points on the page, and whether a straight line leads to each."""
    matrix = raw.FS_MATRIX()
    raw.FPDFPageObj_GetMatrix(shape, matrix)
    begin: tuple[float, float] = (0.0, 0.0)
    for place in range(count):
        segment = raw.FPDFPath_GetPathSegment(shape, place)
        x, y = ctypes.c_float(), ctypes.c_float()
        raw.FPDFPathSegment_GetPoint(segment, x, y)
        kind = raw.FPDFPathSegment_GetType(segment)
        point = (
            matrix.a * x.value + matrix.c * y.value + matrix.e,
            -(matrix.b * x.value + matrix.d * y.value + matrix.f),
        )
        yield *point, kind == raw.FPDF_SEGMENT_LINETO
        if kind == raw.FPDF_SEGMENT_MOVETO:
            begin = point
        if raw.FPDFPathSegment_GetClose(segment):
            yield *begin, True


def _is_rule(box: Box) -> bool:
    width, height = box.x1 - box.x0, box.height
    return min(width, height) <= _THIN < max(width, height)


def _corners(x0: float, y0: float, x1: float, y1: float) -> Box:
    return Box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))


def _upright(box: Box, turn: int) -> Box:
    """The box on the page as turned until its words run from left to right."""
    for _ in range(turn):
        # Words that run upwards come to run to the right: a quarter turn clockwise, y pointing down.
        box = _corners(-box.y0, box.x0, -box.y1, box.x1)
    return box
