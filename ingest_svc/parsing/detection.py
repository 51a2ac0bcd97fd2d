"""What kind of document some bytes are, told by the bytes; the URI's ending helps with text."""

import re
import zipfile
from collections.abc import Callable
from io import BytesIO

from ingest_svc.parsing.languages import language_of

MARKDOWN = "text/markdown"
PLAIN = "text/plain"
HTML = "text/html"
PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
XLSB = "application/vnd.ms-excel.sheet.binary.macroEnabled.12"
XLS = "application/vnd.ms-excel"
ODS = "application/vnd.oasis.opendocument.spreadsheet"
EPUB = "application/epub+zip"
RTF = "application/rtf"
CSV = "text/csv"
JSON = "application/json"
ENCRYPTED_OFFICE = "application/x-encrypted-office"
BINARY = "application/octet-stream"
_ZIP = "application/zip"

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"\x1f\x8b", "application/gzip"),
    (b"BZh", "application/x-bzip2"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"\xfd7zXZ\x00", "application/x-xz"),
    (b"\x7fELF", "application/x-executable"),
    (b"{\\rtf", RTF),
    (b"SQLite format 3\x00", "application/vnd.sqlite3"),
)
_PACKAGES = (
    ("word/document.xml", DOCX),
    ("ppt/presentation.xml", PPTX),
    ("xl/workbook.xml", XLSX),
    ("xl/workbook.bin", XLSB),
    ("META-INF/container.xml", EPUB),
)
PACKAGES = (*(media_type for _, media_type in _PACKAGES), ODS)
# What OLE files hold, by a stream's name.
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_STREAMS = (
    ("EncryptedPackage", ENCRYPTED_OFFICE),
    ("WordDocument", "application/msword"),
    ("PowerPoint Document", "application/vnd.ms-powerpoint"),
    ("Workbook", XLS),
    ("Book", XLS),
    ("__properties_version1.0", "application/vnd.ms-outlook"),
)
_STREAM_NAME_BYTES = 64
# Text under such a name is not what it says: a download's error page, or a file cut to nothing.
_NEVER_TEXT = {
    ".docx": DOCX,
    ".pptx": PPTX,
    ".xlsx": XLSX,
    ".xlsb": XLSB,
    ".ods": ODS,
    ".epub": EPUB,
    ".pdf": PDF,
    ".odt": "application/vnd.oasis.opendocument.text",
    ".odp": "application/vnd.oasis.opendocument.presentation",
}
_HEAD_BYTES = 4096
_MARKDOWN_ENDINGS = (".md", ".markdown", ".mdx", ".mkd")
_HTML_ENDINGS = (".html", ".htm", ".xhtml")
_JSON_ENDINGS = (".json", ".jsonl", ".ndjson", ".ipynb", ".geojson")
_CSV_ENDINGS = (".csv", ".tsv", ".tab")
_JSON_START = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\[\s*)?(?:\{\s*"(?:[^"\\\n]|\\.)*"\s*:)')
_UNICODE_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_HTML_START = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_HTML_ANYWHERE = re.compile(rb"<(?:html|head|body|div|p|table|title|h[1-6])\b[^>]*>", re.IGNORECASE)
_MARKDOWN_SIGNS = re.compile(
    rb"^(?:#{1,6} \S|```|~~~|[-*] \S|\d+\. \S|\|.+\||> )|\[[^\]\n]+\]\([^)\n]+\)", re.MULTILINE
)
_FRONT_MATTER = re.compile(rb"(?:\xef\xbb\xbf)?(---|\+\+\+)\r?\n.*?\n\1\s*\n", re.DOTALL)


def detect(data: bytes, uri: str = "") -> str:
    """The media type of a document's bytes; BINARY where they are not of a known kind and not text."""
    head, path = data[:_HEAD_BYTES], uri.lower().partition("?")[0]
    if b"%PDF-" in head[:1024]:
        return PDF
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _package(data, path)
    if head.startswith(_OLE):
        return next((kind for name, kind in _STREAMS if _stream(name) in data), "application/x-ole-storage")
    for magic, media_type in _MAGIC:
        if head.startswith(magic):
            return media_type
    found = _text(data, path)
    ending = path[path.rfind(".") :]
    return found if found == BINARY else _NEVER_TEXT.get(ending, found)


def _stream(name: str) -> bytes:
    """A stream's name as an OLE file's directory has it."""
    return name.encode("utf-16-le").ljust(_STREAM_NAME_BYTES, b"\x00")


def _package(data: bytes, path: str) -> str:
    try:
        with zipfile.ZipFile(BytesIO(data)) as package:
            names = set(package.namelist())
            declared = _start(package, "mimetype") if "mimetype" in names else ""
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        # The list of files is at the end, so it is the first thing that a truncated file lacks.
        ending = path[path.rfind(".") :]
        return next((kind for name, kind in _PACKAGES if name.encode() in data), _NEVER_TEXT.get(ending, _ZIP))
    if declared.startswith("application/vnd.oasis.opendocument."):
        return declared
    return next((media_type for name, media_type in _PACKAGES if name in names), _ZIP)


def _start(package: zipfile.ZipFile, name: str) -> str:
    """The first bytes of a part, which may unpack to anything."""
    with package.open(name) as part:
        return part.read(_HEAD_BYTES).decode("ascii", "replace").strip()


def _text(data: bytes, path: str) -> str:
    head = data[:_HEAD_BYTES]
    wide = _wide(head)
    if _binary(head) and not wide:
        return BINARY
    plain = (head.replace(b"\x00", b"") if wide else head).lstrip(b"\xef\xbb\xbf\xff\xfe")
    if _is_html(plain, path):
        return HTML
    language = language_of(plain.decode("utf-8", "replace"), path)
    if language is not None:
        return language.media_type
    return next((kind for kind, holds in _TEXT_KINDS if holds(plain, path)), PLAIN)


def _is_html(plain: bytes, path: str) -> bool:
    named = path.endswith(_HTML_ENDINGS) and _HTML_ANYWHERE.search(plain)
    return bool(_HTML_START.match(plain) or named)


def _is_json(plain: bytes, path: str) -> bool:
    return path.endswith(_JSON_ENDINGS) or (_undecided(path) and _JSON_START.match(plain) is not None)


def _is_csv(plain: bytes, path: str) -> bool:
    """By its ending, or where all whole lines have a delimiter equally often: a tab once, another twice or more."""
    if path.endswith(_CSV_ENDINGS):
        return True
    lines = plain.splitlines()[:-1]
    if not _undecided(path) or len(lines) < 3:  # noqa: PLR2004 - two lines may agree by chance
        return False
    counts = (({line.count(mark) for line in lines}, least) for mark, least in ((b"\t", 1), (b";", 2), (b",", 2)))
    return any(len(found) == 1 and min(found) >= least for found, least in counts)


def _is_markdown(plain: bytes, path: str) -> bool:
    if path.endswith(_MARKDOWN_ENDINGS) or _FRONT_MATTER.match(plain):
        return True
    return _undecided(path) and len(set(_MARKDOWN_SIGNS.findall(plain))) > 2  # noqa: PLR2004 - fewer happen in any text


_TEXT_KINDS: tuple[tuple[str, Callable[[bytes, str], bool]], ...] = (
    (JSON, _is_json),
    (CSV, _is_csv),
    (MARKDOWN, _is_markdown),
)
"""Kinds of text and what tells them by the first bytes, without mark and zeros, and by the path; the first counts."""


def _undecided(path: str) -> bool:
    """Whether the path's ending says nothing: program text has lines that look like Markdown's."""
    name = path.rpartition("/")[2]
    return "." not in name or name.endswith(".txt")


def _wide(head: bytes) -> bool:
    """Whether the bytes are UTF-16: by its mark, or by a zero in every other byte of western text."""
    if head.startswith(_UNICODE_MARKS[1:]):
        return True
    sample = head[: len(head) // 2 * 2]
    zeros = max(sample[0::2].count(0), sample[1::2].count(0))
    return len(sample) > 8 and zeros > len(sample) * 0.4  # noqa: PLR2004 - a few bytes prove nothing


def _binary(head: bytes) -> bool:
    if head.startswith(_UNICODE_MARKS[0]):
        return False
    odd = sum(byte < ord(" ") and byte not in b"\t\n\r\f\x1b" for byte in head)
    return b"\x00" in head or odd > len(head) * 0.02
