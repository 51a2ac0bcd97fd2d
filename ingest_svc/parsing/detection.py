"""What kind of document some bytes are, told by the bytes; the URI's ending helps with text."""

import re
import zipfile
from io import BytesIO

MARKDOWN = "text/markdown"
PLAIN = "text/plain"
HTML = "text/html"
PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
ENCRYPTED_OFFICE = "application/x-encrypted-office"
BINARY = "application/octet-stream"

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
    (b"{\\rtf", "application/rtf"),
    (b"SQLite format 3\x00", "application/vnd.sqlite3"),
)
_PACKAGES = (
    ("word/document.xml", DOCX),
    ("ppt/presentation.xml", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("xl/workbook.xml", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("META-INF/container.xml", "application/epub+zip"),
    ("content.xml", "application/vnd.oasis.opendocument"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HEAD_BYTES = 4096
_MARKDOWN_ENDINGS = (".md", ".markdown", ".mdx", ".mkd")
_HTML_ENDINGS = (".html", ".htm", ".xhtml")
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
        return ENCRYPTED_OFFICE if "EncryptedPackage".encode("utf-16-le") in data else "application/x-ole-storage"
    for magic, media_type in _MAGIC:
        if head.startswith(magic):
            return media_type
    return _text(head, path)


def _package(data: bytes, path: str) -> str:
    try:
        with zipfile.ZipFile(BytesIO(data)) as package:
            names = set(package.namelist())
    except (zipfile.BadZipFile, ValueError, OSError):
        # The list of files is at the end, so it is the first thing that a truncated file lacks.
        return DOCX if b"word/document.xml" in data or path.endswith(".docx") else "application/zip"
    return next((media_type for name, media_type in _PACKAGES if name in names), "application/zip")


def _text(head: bytes, path: str) -> str:
    wide = _wide(head)
    if _binary(head) and not wide:
        return BINARY
    plain = head.replace(b"\x00", b"") if wide else head
    if _HTML_START.match(plain.lstrip(b"\xef\xbb\xbf\xff\xfe")):
        return HTML
    if path.endswith(_HTML_ENDINGS) and _HTML_ANYWHERE.search(plain):
        return HTML
    if path.endswith(_MARKDOWN_ENDINGS) or _FRONT_MATTER.match(plain):
        return MARKDOWN
    if _undecided(path) and len(set(_MARKDOWN_SIGNS.findall(plain))) > 2:  # noqa: PLR2004 - fewer happen in any text
        return MARKDOWN
    return PLAIN


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
