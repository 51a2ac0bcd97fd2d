"""DOCX: paragraphs under their headings, lists, tables, equations, notes, text boxes, charts and what pictures show."""

from collections.abc import Iterator
from importlib.metadata import version
from io import BytesIO

import docx
from docx.opc.part import Part
from lxml import etree

from ingest_svc.extract import BlockKind, Extract, Source, Writer
from ingest_svc.parsing import charts, package
from ingest_svc.parsing.detection import DOCX
from ingest_svc.parsing.docx_styles import WORD, Lists, Style, Styles, value
from ingest_svc.parsing.equations import MATH, latex

_CHOICE = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Choice"
_PICTURE = "{http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing}docPr"
_ALTERNATIVES = _CHOICE.replace("Choice", "AlternateContent")
_LEFT_OUT = {
    f"{WORD}{name}" for name in ("del", "moveFrom", "rPr", "pPr", "instrText", "delText", "sectPr", "sdtPr", "rt")
}
_SIGNS = {f"{WORD}tab": "\t", f"{WORD}br": "\n", f"{WORD}cr": "\n", f"{WORD}noBreakHyphen": "-"}
_NOTES = {f"{WORD}footnoteReference": "footnotes", f"{WORD}endnoteReference": "endnotes"}
_MAX_SPAN = 1000


def parse(source: Source) -> Extract:
    """The document with its headers and footers first, each once; notes and text boxes follow their paragraph.

    Comments, deleted text and the table of contents are left out. Raises UNREADABLE_DOCUMENT by way of `read`.
    """
    document = docx.Document(BytesIO(package.common(source.data)))
    writer = Writer()
    reader = _Reader(document.part, writer)
    for text in dict.fromkeys(reader.margins()):
        writer.block(text)
    reader.write(document.element.body)
    return writer.extract(
        DOCX,
        f"python-docx {version('python-docx')}",
        title=package.title(document.core_properties.title) or reader.title,
    )


class _Reader:
    """Writes a document's elements; lives for one document."""

    def __init__(self, part: Part, writer: Writer) -> None:
        self._part = part
        self._writer = writer
        self._styles = Styles(next(self._roots("styles"), None))
        self._lists = Lists(next(self._roots("numbering"), None))
        self._notes = {
            (kind, note.get(f"{WORD}id")): note
            for kind in _NOTES.values()
            for root in self._roots(kind)
            for note in root.iterchildren("{*}*")
        }
        # Of the paragraph at hand: what is anchored in it and stands after it.
        self._anchored: list[etree._Element] = []
        self.title = ""

    def _roots(self, kind: str) -> Iterator[etree._Element]:
        return (package.xml(part.blob) for part in package.related(self._part, kind))

    def margins(self) -> Iterator[str]:
        """The paragraphs of headers and footers; those with a field are page numbers and the like."""
        for root in (*self._roots("header"), *self._roots("footer")):
            for paragraph in root.iter(f"{WORD}p"):
                if next(paragraph.iter(f"{WORD}fldSimple", f"{WORD}instrText"), None) is None:
                    yield self._text(paragraph)
        self._anchored.clear()

    def write(self, container: etree._Element) -> None:
        """Write the paragraphs and tables in an element, however they are wrapped."""
        for element in container.iterchildren("{*}*"):
            if element.tag == f"{WORD}p":
                self._paragraph(element)
            elif element.tag == f"{WORD}tbl":
                self._table(element)
            elif element.tag not in _LEFT_OUT:
                self.write(element)

    def _paragraph(self, paragraph: etree._Element) -> None:
        style = self._styles.of(paragraph.find(f"{WORD}pPr"))
        text = self._text(paragraph)
        anchored, self._anchored = self._anchored, []
        if not style.is_contents:
            self._write(text, style)
        for element in anchored:
            if element.tag in (charts.CHART, charts.DIAGRAM):
                charts.write_reference(element, self._part, self._writer)
            elif element.tag == _PICTURE:
                self._writer.block(package.description(element.get("descr")))
            else:
                self.write(element)

    def _write(self, text: str, style: Style) -> None:
        mark = self._lists.mark(style) if style.list_id not in ("", "0") and text.strip() else ""
        if style.level or style.is_title:
            self._writer.heading(style.level or 1, text if mark in ("", "-") else f"{mark} {text}")
            self.title = self.title or " ".join(text.split())
        elif mark:
            self._writer.block(f"{'  ' * style.list_level}{mark} {text.strip()}", BlockKind.ITEM)
        else:
            self._writer.block(text)

    def _text(self, element: etree._Element) -> str:
        return "".join(self._words(element))

    def _words(self, parent: etree._Element) -> Iterator[str]:
        """The words of a paragraph; what is anchored in it is noted down."""
        for element in parent.iterchildren("{*}*"):
            tag = element.tag
            if tag == f"{WORD}t":
                yield "".join(element.itertext())
            elif tag in _SIGNS:
                yield _SIGNS[tag]
            elif tag == f"{MATH}oMath":
                yield f"${latex(element).strip()}$"
            elif tag == f"{MATH}oMathPara":
                yield "\n".join(f"$${latex(equation).strip()}$$" for equation in element.iterchildren(f"{MATH}oMath"))
            elif tag == _ALTERNATIVES:
                yield from self._words(next(element.iterchildren(_CHOICE), element))
            elif tag in (f"{WORD}txbxContent", _PICTURE, charts.CHART, charts.DIAGRAM):
                self._anchored.append(element)
            elif tag in _NOTES:
                note = self._notes.pop((_NOTES[tag], element.get(f"{WORD}id")), None)
                self._anchored += [] if note is None else [note]
            elif tag not in _LEFT_OUT:
                yield from self._words(element)

    def _table(self, table: etree._Element) -> None:
        rows = [self._row(row) for row in _inner(table, "tr")]
        cells = [cell for row in rows for cell, _ in row]
        if len(cells) == 1:
            self.write(cells[0])
            return
        written: list[list[str]] = []
        for row in rows:
            line: list[str] = []
            for cell, span in row:
                above = written[-1][len(line)] if written and len(written[-1]) > len(line) else ""
                line += [above if _continues(cell) else self._cell(cell)] * span
            written.append(line)
        self._writer.table(written)

    def _row(self, row: etree._Element) -> list[tuple[etree._Element, int]]:
        """The cells of a row and how many columns each spans."""
        before = value(row.find(f"{WORD}trPr"), "gridBefore")
        skipped = [(etree.Element(f"{WORD}tc"), _span(before))] if before else []
        return [*skipped, *((cell, _span(value(cell, "tcPr/gridSpan"))) for cell in _inner(row, "tc"))]

    def _cell(self, container: etree._Element) -> str:
        """The words of a cell, those of tables in it and of what is anchored in it too."""
        words = [
            self._text(element) if element.tag == f"{WORD}p" else self._cell(element)
            for element in container.iterchildren("{*}*")
            if element.tag not in _LEFT_OUT
        ]
        anchored, self._anchored = self._anchored, []
        return " ".join(filter(None, [*words, *map(self._cell, anchored)]))


def _inner(parent: etree._Element, name: str) -> Iterator[etree._Element]:
    """The elements of a name in a table or row, also those that are wrapped."""
    for element in parent.iterchildren("{*}*"):
        if element.tag == WORD + name:
            yield element
        elif element.tag not in (f"{WORD}tc", *_LEFT_OUT):
            yield from _inner(element, name)


def _continues(cell: etree._Element) -> bool:
    """Whether the cell goes on with the one above it."""
    merge = cell.find(f"{WORD}tcPr/{WORD}vMerge")
    return merge is not None and merge.get(f"{WORD}val", "continue") == "continue"


def _span(count: str) -> int:
    return min(int(count), _MAX_SPAN) if count.isdigit() else 1
