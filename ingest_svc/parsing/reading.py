"""Reading a document: detect its kind, hand it to that kind's parser, and check what comes back."""

from collections.abc import Callable
from importlib import import_module

from ingest_svc.extract import Extract, Source
from ingest_svc.parsing import detection
from ingest_svc.parsing.languages import BY_MEDIA_TYPE
from ingest_svc.parsing.office_encryption import decrypted
from ingest_svc.parsing.unpacking import broken, check
from meshkit.errors import InvalidArgument, MeshError, ResourceExhausted

# Imported at first use: a process that reads Markdown does not load PDFium.
_PARSERS = {
    detection.PLAIN: "plain_text",
    detection.MARKDOWN: "markdown",
    detection.HTML: "html",
    detection.PDF: "pdf",
    detection.DOCX: "docx",
    detection.PPTX: "pptx",
    detection.XLSX: "spreadsheet",
    detection.XLSB: "spreadsheet",
    detection.XLS: "spreadsheet",
    detection.ODS: "spreadsheet",
    detection.EPUB: "epub",
    detection.CSV: "csv",
    detection.JSON: "json",
    detection.RTF: "rtf",
}
_INSTEAD = {
    "application/msword": "save it as DOCX",
    "application/vnd.ms-powerpoint": "save it as PPTX",
    "application/zip": "send the files in it",
    "application/vnd.oasis.opendocument.text": "save it as DOCX",
    "application/vnd.oasis.opendocument.presentation": "save it as PPTX",
}


def read(source: Source, max_text_bytes: int) -> Extract:
    """The text of a document.

    Raises MeshError with UNSUPPORTED_FORMAT, UNREADABLE_DOCUMENT, NO_TEXT, PASSWORD_REQUIRED or PARSER_LIMIT.
    """
    media_type = detection.detect(source.data, source.uri)
    if media_type == detection.ENCRYPTED_OFFICE:
        source = decrypted(source)
        media_type = detection.detect(source.data, source.uri)
    if media_type in detection.PACKAGES:
        check(source.data, media_type)
    if not source.data.strip():
        raise _without_text(media_type)
    extract = _parsed(_parser(media_type), source, media_type)
    if not extract.blocks:
        raise _without_text(media_type)
    if len(extract.text.encode()) > max_text_bytes:
        message = f"the document has more than {max_text_bytes} bytes of text"
        raise ResourceExhausted("PARSER_LIMIT", message, metadata={"limit": "text"})
    return extract


def _parser(media_type: str) -> Callable[[Source], Extract]:
    name = "source_code" if media_type in BY_MEDIA_TYPE else _PARSERS.get(media_type)
    if name is None:
        instead = f": {_INSTEAD[media_type]}" if media_type in _INSTEAD else ""
        message = f"no parser reads {media_type}{instead}"
        raise InvalidArgument("UNSUPPORTED_FORMAT", message, metadata={"media_type": media_type})
    parse: Callable[[Source], Extract] = import_module(f"ingest_svc.parsing.{name}").parse
    return parse


def _parsed(parse: Callable[[Source], Extract], source: Source, media_type: str) -> Extract:
    try:
        return parse(source)
    except (MeshError, MemoryError):
        raise
    except Exception as error:
        # Parsers answer broken documents with whatever their lower layers raise.
        raise broken(media_type) from error


def _without_text(media_type: str) -> InvalidArgument:
    return InvalidArgument("NO_TEXT", "the document has no text", metadata={"media_type": media_type})
