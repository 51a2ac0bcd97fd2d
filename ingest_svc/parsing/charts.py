"""Charts of Office documents (DrawingML) as tables of their values, and the words of diagrams."""

import re
import zipfile
from io import BytesIO

from docx.opc.package import OpcPackage
from docx.opc.part import Part
from lxml import etree

from ingest_svc.extract import BlockKind, Writer
from ingest_svc.parsing.package import common, related, xml

_NAMESPACES = {
    "a": "http://schemas.openxmlformats.org/drawingml/2006/main",
    "c": "http://schemas.openxmlformats.org/drawingml/2006/chart",
    "s": "http://schemas.openxmlformats.org/spreadsheetml/2006/main",
}
_RELATIONS = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
CHART = "{http://schemas.openxmlformats.org/drawingml/2006/chart}chart"
DIAGRAM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}relIds"
_KIND = re.compile(r"(\w+?)(?:3D)?Chart")


def write_reference(element: etree._Element, part: Part, writer: Writer) -> None:
    """Write the chart or diagram that an element of a part refers to, one with the tag CHART or DIAGRAM."""
    if element.tag == CHART:
        write(part.rels[element.get(f"{_RELATIONS}id")].target_part.blob, writer)
        return
    for paragraph in xml(part.rels[element.get(f"{_RELATIONS}dm")].target_part.blob).iter("{*}p"):
        words = "".join(_texts(paragraph)).strip()
        writer.block(f"- {words}" if words else "", BlockKind.ITEM)


def write(part: bytes, writer: Writer) -> None:
    """Write a chart's title, its kind, and its series as columns beside the categories or x values."""
    chart = xml(part)
    writer.block(" ".join("".join(words) for words in map(_texts, _all(chart, "./c:chart/c:title//a:p"))))
    for plot in _all(chart, "./c:chart/c:plotArea/*[./c:ser]"):
        series = _all(plot, "./c:ser")
        values = [_points(one, "./c:val//c:pt | ./c:yVal//c:pt | ./c:bubbleSize//c:pt") for one in series]
        names = next(filter(None, (_points(one, "./c:cat//c:pt | ./c:xVal//c:pt") for one in series)), {})
        places = sorted({*names, *(place for one in values for place in one)})
        heads = ["", *(" ".join(one.xpath("./c:tx//c:v/text()", namespaces=_NAMESPACES)) for one in series)]
        kind = _KIND.match(etree.QName(plot).localname)
        writer.block(f"{kind[1].capitalize()} chart" if kind else "")
        writer.table([heads, *([names.get(place, ""), *(one.get(place, "") for one in values)] for place in places)])


def of_sheets(data: bytes) -> dict[str, list[bytes]]:
    """The parts of the charts on each sheet of an XLSX, by the sheet's name; none where the package has none."""
    if not zipfile.is_zipfile(BytesIO(data)) or b"xl/charts/" not in data:
        return {}
    book: Part = OpcPackage.open(BytesIO(common(data))).main_document_part
    found = {}
    for sheet in _all(xml(book.blob), "//s:sheet"):
        drawings = related(book.related_parts[sheet.get(f"{_RELATIONS}id")], "drawing")
        found[sheet.get("name")] = [chart.blob for drawing in drawings for chart in related(drawing, "chart")]
    return found


def _all(element: etree._Element, path: str) -> list[etree._Element]:
    found: list[etree._Element] = element.xpath(path, namespaces=_NAMESPACES)
    return found


def _texts(paragraph: etree._Element) -> list[str]:
    return [run.text or "" for run in _all(paragraph, ".//a:t")]


def _points(series: etree._Element, path: str) -> dict[int, str]:
    """The values of a series' points that are cached in the chart, by their places."""
    points = {int(point.get("idx", 0)): point.findtext("c:v", "", _NAMESPACES) for point in _all(series, path)}
    return {place: _short(value) for place, value in points.items()}


def _short(value: str) -> str:
    """A number without the noise of its last binary digits; other words as they are."""
    try:
        return f"{float(value):.12g}"
    except ValueError:
        return value
