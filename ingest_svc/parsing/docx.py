"""DOCX: paragraphs under their headings, lists and tables."""

import re
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from io import BytesIO

import docx
from docx.document import Document
from docx.table import Table
from docx.text.paragraph import Paragraph

from ingest_svc.extract import BlockKind, Extract, Source, Writer
from ingest_svc.parsing.detection import DOCX
from meshkit.errors import InvalidArgument, MeshError, ResourceExhausted

_HEADING = re.compile(r"heading\s*(\d)", re.IGNORECASE)
_LIST = re.compile(r"list", re.IGNORECASE)
_MAX_UNPACKED_BYTES = 128 * 1024 * 1024
# The strict form of the format differs from the common one in its namespaces only.
_STRICT = b"http://purl.oclc.org/ooxml/"
_NAMESPACES = {
    _STRICT + b"officeDocument/": b"http://schemas.openxmlformats.org/officeDocument/2006/",
    _STRICT + b"wordprocessingml/": b"http://schemas.openxmlformats.org/wordprocessingml/2006/",
    _STRICT + b"drawingml/": b"http://schemas.openxmlformats.org/drawingml/2006/",
}


def parse(source: Source) -> Extract:
    """The body of the document; raises UNREADABLE_DOCUMENT, or PARSER_LIMIT where it unpacks to too much."""
    document = _open(source.data)
    writer = Writer()
    title = document.core_properties.title or ""
    for part in document.iter_inner_content():
        if isinstance(part, Table):
            writer.block("\n".join(_rows(part)), BlockKind.TABLE)
        else:
            title = title or (part.text if _style(part) == "Title" else "")
            _write(part, writer)
    return writer.extract(DOCX, f"python-docx {version('python-docx')}", title=title)


def _open(data: bytes) -> Document:
    try:
        return docx.Document(BytesIO(_transitional(data)))
    except (MemoryError, MeshError):
        raise
    except Exception as error:
        # python-docx answers broken packages with whatever its lower layers raise.
        metadata = {"media_type": DOCX}
        raise InvalidArgument("UNREADABLE_DOCUMENT", "the DOCX is broken", metadata=metadata) from error


def _transitional(data: bytes) -> bytes:
    """The package in the common form of the format, which is the only one that python-docx reads."""
    with zipfile.ZipFile(BytesIO(data)) as package:
        if sum(part.file_size for part in package.infolist()) > _MAX_UNPACKED_BYTES:
            message = "the document would unpack to too many bytes"
            raise ResourceExhausted("PARSER_LIMIT", message, metadata={"limit": "unpacked_bytes"})
        if _STRICT not in package.read("_rels/.rels"):
            return data
        common = BytesIO()
        with zipfile.ZipFile(common, "w", zipfile.ZIP_DEFLATED) as rewritten:
            for part in package.infolist():
                rewritten.writestr(part.filename, _renamed(package.read(part)))
        return common.getvalue()


def _renamed(part: bytes) -> bytes:
    for strict, common in _NAMESPACES.items():
        # The strict form has the year's place elsewhere: ".../wordprocessingml/main".
        part = part.replace(strict, common)
    return part


def _write(paragraph: Paragraph, writer: Writer) -> None:
    style, text = _style(paragraph), paragraph.text
    heading = _HEADING.match(style)
    if heading or style == "Title":
        writer.heading(int(heading[1]) if heading else 1, text)
    elif text.strip() and (_LIST.match(style) or _numbered(paragraph)):
        writer.block(f"- {text}", BlockKind.ITEM)
    else:
        writer.block(text)


def _style(paragraph: Paragraph) -> str:
    return (paragraph.style.name or "") if paragraph.style is not None else ""


def _numbered(paragraph: Paragraph) -> bool:
    properties = paragraph._p.pPr  # noqa: SLF001 - python-docx has no word for numbering
    return properties is not None and properties.numPr is not None


def _rows(table: Table) -> Iterator[str]:
    for row in table.rows:
        seen = set()
        words = []
        for cell in row.cells:
            # A merged cell stands in the row once for each column that it spans.
            if cell._tc not in seen:  # noqa: SLF001 - its identity is its element
                seen.add(cell._tc)  # noqa: SLF001
                words.append(" ".join(cell.text.split()))
        yield " | ".join(words)
