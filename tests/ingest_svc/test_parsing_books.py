"""EPUB and RTF."""

import zipfile
from io import BytesIO

import pytest

from ingest_svc.extract import BlockKind
from meshkit.errors import MeshError
from tests.ingest_svc.parsed import blocks, extract

CONTAINER = '<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">
<metadata><dc:title>Ponds</dc:title><dc:creator>A. Duck</dc:creator><dc:language>en</dc:language></metadata>
<manifest><item id="one" href="one%20.xhtml" media-type="application/xhtml+xml"/>
<item id="two" href="two.xhtml" media-type="application/xhtml+xml"/>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="lost" href="lost.xhtml" media-type="application/xhtml+xml"/>
<item id="cover" href="cover.png" media-type="image/png"/></manifest>
<spine><itemref idref="cover"/><itemref idref="nav"/><itemref idref="two"/><itemref idref="one"/>
<itemref idref="lost"/></spine></package>"""


def page(body: str) -> str:
    """A page of a book."""
    return f'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body>{body}</body></html>'


def book(**parts: str) -> bytes:
    """An EPUB with these parts beside its container."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as package:
        package.writestr("mimetype", "application/epub+zip")
        package.writestr("META-INF/container.xml", CONTAINER)
        for name, text in parts.items():
            package.writestr(f"OEBPS/{name.replace('__', '.')}", text)
    return file.getvalue()


def test_a_book_is_read_along_its_spine() -> None:
    """Pages come in the spine's order, the table of contents does not; what lacks is told of."""
    found = extract(
        book(
            book__opf=PACKAGE,
            two__xhtml=page("<h1>First</h1><p>Duck &amp; drake.</p>"),
            nav__xhtml=page("<p>Contents</p>"),
            **{"one __xhtml": page("<h1>Second</h1><ul><li>bread</li></ul>")},
        )
    )
    assert blocks(found) == [
        (BlockKind.HEADING, "First"),
        (BlockKind.PARAGRAPH, "Duck & drake."),
        (BlockKind.HEADING, "Second"),
        (BlockKind.ITEM, "- bread"),
    ]
    assert (found.title, found.metadata) == ("Ponds", {"author": "A. Duck", "language": "en"})
    assert found.warnings == ("no page OEBPS/lost.xhtml",)


def test_a_book_without_its_package_is_broken() -> None:
    """The reason is UNREADABLE_DOCUMENT."""
    with pytest.raises(MeshError) as failed:
        extract(book(other="x"))
    assert failed.value.reason == "UNREADABLE_DOCUMENT"


def test_rtf_gives_paragraphs_and_tables() -> None:
    """Escapes of the declared code page and of Unicode are read; rows are a table."""
    found = extract(
        r"{\rtf1\ansi\ansicpg1252{\pard Gr\'fc\'dfe \u8364? a|b\par}{\pict " + "89504e47" * 99 + "}"
        r"{\trowd\cellx1\cellx2 a\cell b\cell\row 1\cell 2\cell\row}{\pard Ende\par}}"
    )
    assert blocks(found) == [
        (BlockKind.PARAGRAPH, "Grüße € a|b"),
        (BlockKind.TABLE, "| a | b |\n| --- | --- |\n| 1 | 2 |"),
        (BlockKind.PARAGRAPH, "Ende"),
    ]
