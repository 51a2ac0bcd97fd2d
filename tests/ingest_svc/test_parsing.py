"""What kind a document is of, and why some are refused."""

import zipfile
from io import BytesIO

import pytest
from fpdf import FPDF

from ingest_svc.extract import Source
from ingest_svc.parsing import detection
from ingest_svc.parsing.reading import read
from meshkit.errors import MeshError
from tests.ingest_svc.parsed import extract

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
PNG = b"\x89PNG\r\n\x1a\n"


def reason(data: bytes, uri: str = "", password: str = "") -> str:
    """The reason for which a document is refused."""
    with pytest.raises(MeshError) as failed:
        extract(data, uri, password)
    return failed.value.reason


def package(*names: str, size: int = 0) -> bytes:
    """A ZIP file with these parts, the first of them said to be that large."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as parts:
        for name in names:
            parts.writestr(name, b"<x/>")
        parts.infolist()[0].file_size = size or parts.infolist()[0].file_size
    return file.getvalue()


def ole(stream: str) -> bytes:
    """What an OLE file with this stream has of it: its header and an entry of its directory."""
    return OLE + bytes(504) + stream.encode("utf-16-le").ljust(64, b"\x00") + bytes(64)


def pdf(*pages: str, password: str = "") -> bytes:
    """A PDF with a text on each page."""
    document = FPDF()
    if password:
        document.set_encryption(owner_password="owner", user_password=password)
    document.set_font("Helvetica")
    document.set_title("Rules")
    for page in pages:
        document.add_page()
        document.multi_cell(0, text=page)
    return bytes(document.output())


@pytest.mark.parametrize(
    ("data", "uri", "media_type"),
    [
        (package("word/document.xml"), "x.xlsx", detection.DOCX),
        (package("ppt/presentation.xml"), "", detection.PPTX),
        (package("xl/workbook.xml"), "", detection.XLSX),
        (package("xl/workbook.bin"), "", detection.XLSB),
        (package("META-INF/container.xml"), "x.zip", detection.EPUB),
        (package("readme.txt"), "x.docx", "application/zip"),
        (package("word/document.xml")[:-30], "", detection.DOCX),
        (ole("WordDocument"), "x.docx", "application/msword"),
        (ole("Workbook"), "", detection.XLS),
        (ole("EncryptedPackage"), "x.xlsx", detection.ENCRYPTED_OFFICE),
        (b"{\\rtf1 x}", "x.doc", detection.RTF),
        (PNG, "x.pdf", "image/png"),
        (b"\x00\x01\x02\x03" * 9, "x.txt", detection.BINARY),
        (b"<!doctype html><p>x", "x.txt", detection.HTML),
        (b"<p>Please log in</p>", "x.docx", detection.DOCX),
        (b'{"a": 1}', "x", detection.JSON),
        (b"[1] A note in brackets", "x.txt", detection.PLAIN),
        (b"# One\n\n- two\n\n> three\n", "", detection.MARKDOWN),
        (b"", "x.md", detection.MARKDOWN),
    ],
)
def test_kinds_are_told_by_content(data: bytes, uri: str, media_type: str) -> None:
    """Names count between kinds of text only; text that is named as a package is taken for a broken one."""
    assert detection.detect(data, uri) == media_type


def test_documents_are_refused_with_a_reason() -> None:
    """What nothing reads, what is broken, what is empty, what is too large."""
    assert reason(ole("WordDocument"), "x.doc") == "UNSUPPORTED_FORMAT"
    assert reason(PNG, "x.pdf") == "UNSUPPORTED_FORMAT"
    assert reason(b"<p>Please log in</p>", "x.docx") == "UNREADABLE_DOCUMENT"
    assert reason(package("word/document.xml")) == "UNREADABLE_DOCUMENT"
    assert reason(ole("EncryptedPackage")) == "UNREADABLE_DOCUMENT"
    assert reason(b" \n", "x.md") == "NO_TEXT"
    assert reason(b"word " * 300_000) == "PARSER_LIMIT"


@pytest.mark.parametrize("name", ["word/document.xml", "ppt/presentation.xml", "xl/workbook.xml"])
def test_packages_that_unpack_to_too_much_are_refused_unread(name: str) -> None:
    """The sizes that a package declares are summed before anything is unpacked."""
    assert reason(package(name, size=200_000_000)) == "PARSER_LIMIT"


def test_old_formats_name_what_to_do_instead() -> None:
    """The message of a refusal says which format would be read."""
    with pytest.raises(MeshError) as failed:
        read(Source(ole("PowerPoint Document")), 1000)
    assert failed.value.message == "no parser reads application/vnd.ms-powerpoint: save it as PPTX"


def test_pdf_pages_are_numbered() -> None:
    """Each block has the page it is on; a page without text is told of."""
    found = extract(pdf("First page.", "", "Third page."))
    assert [block.page for block in found.blocks] == [1, 3]
    assert (found.page_count, found.title) == (3, "Rules")
    assert found.warnings == ("pages without text: 2",)


def test_an_encrypted_pdf_needs_its_password() -> None:
    """Without the password, or with a wrong one, the reason is PASSWORD_REQUIRED; with it the text is read."""
    data = pdf("Secret page.", password="sesame")
    assert "Secret page." in extract(data, password="sesame").text
    for password in ("", "wrong"):
        with pytest.raises(MeshError) as failed:
            extract(data, password=password)
        assert failed.value.reason == "PASSWORD_REQUIRED"
