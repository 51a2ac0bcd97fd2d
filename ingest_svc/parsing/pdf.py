"""PDF: the text layer in reading order, and the words of scanned pages where tesseract is installed."""

from collections.abc import Sequence
from importlib.metadata import version

import pypdfium2
from pypdfium2 import raw

from ingest_svc.extract import Extract, Source, Writer
from ingest_svc.parsing import ocr, pdf_blocks
from ingest_svc.parsing.detection import PDF
from ingest_svc.parsing.pdf_layout import Part, Prose, parts
from ingest_svc.parsing.pdf_words import read_page
from meshkit.errors import FailedPrecondition, InvalidArgument

_READER = f"pypdfium2 {version('pypdfium2')}"
# What writers put there for want of a title.
_NO_TITLES = {"untitled", "(anonymous)"}
_FIELDS = ("Author", "Subject", "Keywords")
_MAX_DEPTH = 3
# What warnings say of pages.
_BLANK = "pages without text"
_BROKEN = "pages that could not be read"
_RECOGNISED = "pages read by OCR"
_SCANNED = "scanned pages without text"


def parse(source: Source) -> Extract:
    """The pages' blocks; raises PASSWORD_REQUIRED, UNREADABLE_DOCUMENT, and NO_TEXT where it has images only."""
    document = _open(source.data, source.password)
    try:
        return _Reading(document, source.ocr_languages).extract()
    finally:
        document.close()


def _open(data: bytes, password: str) -> pypdfium2.PdfDocument:
    try:
        return pypdfium2.PdfDocument(data, password=password or None)
    except pypdfium2.PdfiumError as error:
        if error.err_code == raw.FPDF_ERR_PASSWORD:
            words = "the document is encrypted, and came without the password that opens it"
            raise FailedPrecondition("PASSWORD_REQUIRED", words) from error
        raise _unreadable() from error


class _Reading:
    """Reads one open document once, and remembers which of its pages it could not read."""

    def __init__(self, document: pypdfium2.PdfDocument, languages: str) -> None:
        self._document = document
        self._languages = languages
        self._can_recognise = ocr.is_installed()
        self._why = "" if self._can_recognise else "OCR (tesseract) is not installed"
        self._pages: dict[str, list[int]] = {_BLANK: [], _BROKEN: [], _RECOGNISED: [], _SCANNED: []}

    def extract(self) -> Extract:
        if len(self._document) == 0:
            raise _unreadable()
        pages = [self._page(number) for number in range(1, len(self._document) + 1)]
        writer = Writer()
        pdf_blocks.write(pages, writer)
        if writer.empty and self._pages[_SCANNED]:
            message = f"the document has scanned pages only: {self._why}"
            raise InvalidArgument("NO_TEXT", message, metadata={"media_type": PDF, "ocr": self._why})
        fields = self._document.get_metadata_dict(skip_empty=True)
        title = fields.get("Title", "")
        return writer.extract(
            PDF,
            f"{_READER}, tesseract ({self._languages})" if self._pages[_RECOGNISED] else _READER,
            title="" if title.lower() in _NO_TITLES else title,
            page_count=len(pages),
            metadata={key.lower(): fields[key] for key in _FIELDS if key in fields},
            warnings=[self._warning(kind, numbers) for kind, numbers in self._pages.items() if numbers],
        )

    def _warning(self, kind: str, pages: Sequence[int]) -> str:
        why = f" ({self._why})" if kind == _SCANNED else ""
        return f"{kind}: {_listed(pages)}{why}"

    def _page(self, number: int) -> list[Part]:
        """What stands on the page; nothing where it cannot be read."""
        try:
            page = self._document[number - 1]
        except pypdfium2.PdfiumError:
            return self._nothing(_BROKEN, number)
        try:
            found = [part for words in read_page(page) for part in parts(words)]
            return found or self._image(page, number)
        except pypdfium2.PdfiumError:
            return self._nothing(_BROKEN, number)
        finally:
            page.close()

    def _image(self, page: pypdfium2.PdfPage, number: int) -> list[Part]:
        """The paragraphs on a page's image, as far as there is one and it can be read."""
        images = page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=_MAX_DEPTH)
        if next(iter(images), None) is None:
            return self._nothing(_BLANK, number)
        if not self._can_recognise:
            return self._nothing(_SCANNED, number)
        try:
            paragraphs = ocr.read(page, self._languages)
        except ocr.OcrFailedError as error:
            self._why = f"OCR failed: {error}"
            return self._nothing(_SCANNED, number)
        self._pages[_RECOGNISED if paragraphs else _BLANK].append(number)
        return [Prose(text) for text in paragraphs]

    def _nothing(self, kind: str, number: int) -> list[Part]:
        self._pages[kind].append(number)
        return []


def _listed(pages: Sequence[int]) -> str:
    shown = ", ".join(str(page) for page in pages[:10])
    return shown if len(pages) <= 10 else f"{shown} and {len(pages) - 10} more"  # noqa: PLR2004 - enough to look at


def _unreadable() -> InvalidArgument:
    return InvalidArgument("UNREADABLE_DOCUMENT", "the PDF is broken", metadata={"media_type": PDF})
