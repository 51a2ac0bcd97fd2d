"""PDF: the text layer, page by page."""

from importlib.metadata import version

import pypdfium2
from pypdfium2.raw import FPDF_ERR_PASSWORD

from ingest_svc.extract import Extract, Source, Writer
from ingest_svc.parsing.detection import PDF
from meshkit.errors import FailedPrecondition, InvalidArgument

# PDFium's mark of a hyphen that only breaks a word at a line's end.
_SOFT_HYPHEN = "\ufffe"

# What writers put there for want of a title.
_NO_TITLES = {"untitled", "(anonymous)"}


def parse(source: Source) -> Extract:
    """Each page as a block; raises PASSWORD_REQUIRED, UNREADABLE_DOCUMENT."""
    document = _open(source.data, source.password)
    try:
        return _read(document)
    finally:
        document.close()


def _open(data: bytes, password: str) -> pypdfium2.PdfDocument:
    try:
        return pypdfium2.PdfDocument(data, password=password or None)
    except pypdfium2.PdfiumError as error:
        if error.err_code == FPDF_ERR_PASSWORD:
            words = "the password is wrong" if password else "the document is encrypted"
            raise FailedPrecondition("PASSWORD_REQUIRED", words) from error
        raise _unreadable() from error


def _read(document: pypdfium2.PdfDocument) -> Extract:
    writer = Writer()
    blank: list[int] = []
    for number in range(1, len(document) + 1):
        writer.page = number
        text = _page(document, number)
        if not text.strip():
            blank.append(number)
        writer.block(text)
    if len(document) == 0:
        raise _unreadable()
    title = document.get_metadata_value("Title") or ""
    return writer.extract(
        PDF,
        f"pypdfium2 {version('pypdfium2')}",
        title="" if title.lower() in _NO_TITLES else title,
        page_count=len(document),
        warnings=[f"pages without text: {_listed(blank)}"] if blank else [],
    )


def _page(document: pypdfium2.PdfDocument, number: int) -> str:
    """The text of a page, words that a line's end broke joined again; none where it cannot be read."""
    try:
        page = document[number - 1]
        text: str = page.get_textpage().get_text_bounded()
    except pypdfium2.PdfiumError:
        return ""
    for broken in (_SOFT_HYPHEN + "\r\n", _SOFT_HYPHEN):
        text = text.replace(broken, "")
    return text


def _listed(pages: list[int]) -> str:
    shown = ", ".join(str(page) for page in pages[:10])
    return shown if len(pages) <= 10 else f"{shown} and {len(pages) - 10} more"  # noqa: PLR2004 - enough to look at


def _unreadable() -> InvalidArgument:
    return InvalidArgument("UNREADABLE_DOCUMENT", "the PDF is broken", metadata={"media_type": PDF})
