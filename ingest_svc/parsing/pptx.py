"""PPTX: slides as pages, each with its title, its shapes in reading order and its notes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from io import BytesIO
from itertools import chain

from lxml import etree
from pptx import Presentation
from pptx.enum.shapes import PP_PLACEHOLDER
from pptx.shapes.base import BaseShape
from pptx.slide import Slide
from pptx.table import Table
from pptx.text.text import TextFrame

from ingest_svc.extract import BlockKind, Extract, Source, Writer
from ingest_svc.parsing import charts, package
from ingest_svc.parsing.detection import PPTX
from ingest_svc.parsing.equations import MATH, latex

_DRAWING = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_CHOICE = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Choice"
_TITLES = (PP_PLACEHOLDER.TITLE, PP_PLACEHOLDER.CENTER_TITLE, PP_PLACEHOLDER.VERTICAL_TITLE)
_LISTS = (PP_PLACEHOLDER.BODY, PP_PLACEHOLDER.OBJECT, PP_PLACEHOLDER.VERTICAL_BODY)
_LEFT_OUT = (PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.FOOTER, PP_PLACEHOLDER.SLIDE_NUMBER, PP_PLACEHOLDER.HEADER)
# Shapes whose upper edges differ by less of a slide's height stand side by side.
_ROW_SHARE = 30


def parse(source: Source) -> Extract:
    """Each slide's text, tables, charts, diagrams and notes; dates, footers and slide numbers are left out."""
    deck = Presentation(BytesIO(package.common(source.data)))
    writer = Writer()
    row_height = deck.slide_height // _ROW_SHARE
    titles: list[str] = []
    for number, slide in enumerate(deck.slides, 1):
        writer.page = number
        writer.close_headings()
        ordered = list(_in_order(slide.shapes, row_height))
        title = next((shape for shape in ordered if _role(shape) in _TITLES), None)
        if title is not None:
            titles.append(_joined(title.text_frame))
            writer.heading(1, titles[-1])
        for shape in ordered:
            if shape is not title and _role(shape) not in _LEFT_OUT:
                _write(shape, slide, writer)
        notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
        for paragraph in _paragraphs(notes) if notes is not None else ():
            writer.block(_text(paragraph))
    return writer.extract(
        PPTX,
        f"python-pptx {version('python-pptx')}",
        title=package.title(deck.core_properties.title) or next(filter(None, titles), ""),
        page_count=len(deck.slides),
    )


def _in_order(shapes: Sequence[BaseShape], row_height: int) -> Iterator[BaseShape]:
    """The shapes from the top down, those side by side from the left; those of a group together."""
    row: list[BaseShape] = []
    for shape in sorted(shapes, key=_top):
        if row and _top(shape) - _top(row[0]) >= row_height:
            yield from _row(row, row_height)
            row = []
        row.append(shape)
    yield from _row(row, row_height)


def _row(row: list[BaseShape], row_height: int) -> Iterator[BaseShape]:
    for shape in sorted(row, key=lambda shape: shape.left or 0):
        yield from _in_order(shape.shapes, row_height) if hasattr(shape, "shapes") else (shape,)


def _top(shape: BaseShape) -> int:
    return shape.top or 0


def _role(shape: BaseShape) -> PP_PLACEHOLDER | None:
    return shape.placeholder_format.type if shape.is_placeholder else None


def _body(frame: TextFrame) -> etree._Element:
    return frame._txBody  # noqa: SLF001 - python-pptx leaves equations out of a text, and knows no bullets


def _paragraphs(frame: TextFrame) -> Iterator[etree._Element]:
    yield from _body(frame).iterchildren(f"{_DRAWING}p")


def _joined(frame: TextFrame) -> str:
    return " ".join(map(_text, _paragraphs(frame)))


def _write(shape: BaseShape, slide: Slide, writer: Writer) -> None:
    if shape.has_text_frame:
        _write_text(shape, writer)
    elif getattr(shape, "has_table", False):
        writer.table(_rows(shape.table))
    else:
        element = shape._element  # noqa: SLF001 - python-pptx knows neither diagrams nor descriptions
        writer.block(package.description(next(element.iter("{*}cNvPr")).get("descr")))
        for drawing in element.iter(charts.CHART, charts.DIAGRAM):
            charts.write_reference(drawing, slide.part, writer)


def _write_text(shape: BaseShape, writer: Writer) -> None:
    counts: Counter[int] = Counter()
    for paragraph in _paragraphs(shape.text_frame):
        properties = paragraph.find(f"{_DRAWING}pPr")
        text, level = _text(paragraph).strip(), int(properties.get("lvl", 0)) if properties is not None else 0
        bullet = _bullet(shape, properties, level)
        for ended in [place for place in counts if place > level or (place == level and bullet != "buAutoNum")]:
            del counts[ended]
        if not text or not bullet:
            writer.block(text)
            continue
        counts[level] += 1
        mark = f"{counts[level]}." if bullet == "buAutoNum" else "-"
        writer.block(f"{'  ' * level}{mark} {text}", BlockKind.ITEM)


def _bullet(shape: BaseShape, own: etree._Element | None, level: int) -> str:
    """What marks a paragraph with these properties of its own: "buAutoNum", another name for a bullet, or "".

    Its own mark counts first, then that of its shape, then that of the layout; bodies have bullets unless told not to.
    """
    frames = [shape.text_frame, *(base.text_frame for base in _bases(shape))]
    styles = (_body(frame).find(f"{_DRAWING}lstStyle/{_DRAWING}lvl{level + 1}pPr") for frame in frames)
    for properties in chain([own], styles):
        marks = [] if properties is None else [etree.QName(mark).localname for mark in properties.iterchildren("{*}*")]
        found = {"buNone", "buAutoNum", "buChar", "buBlip"}.intersection(marks)
        if found:
            return found.pop().replace("buNone", "")
    return "buChar" if _role(shape) in _LISTS else ""


def _bases(shape: BaseShape) -> Iterator[BaseShape]:
    """The placeholder of the layout that a placeholder inherits from."""
    base = getattr(shape, "_base_placeholder", None)
    if base is not None and base.has_text_frame:
        yield base


def _text(paragraph: etree._Element) -> str:
    return "".join(_words(paragraph))


def _words(parent: etree._Element) -> Iterator[str]:
    for element in parent.iterchildren("{*}*"):
        if element.tag == f"{_DRAWING}t":
            yield "".join(element.itertext())
        elif element.tag == f"{_DRAWING}br":
            yield "\n"
        elif element.tag == f"{MATH}oMath":
            yield f"${latex(element).strip()}$"
        elif element.tag.endswith("}AlternateContent"):
            yield from _words(next(element.iterchildren(_CHOICE), element))
        elif element.get("type") != "slidenum":
            yield from _words(element)


def _rows(table: Table) -> list[list[str]]:
    """The words of each row's cells; a merged cell's stand in each cell that it spans."""
    rows = [[_joined(cell.text_frame) for cell in row.cells] for row in table.rows]
    for place, row in enumerate(table.rows):
        for column, cell in enumerate(row.cells):
            if cell.is_merge_origin:
                for spanned in rows[place : place + cell.span_height]:
                    width = len(spanned[column : column + cell.span_width])
                    spanned[column : column + width] = [rows[place][column]] * width
    return rows
