"""Plain text: its charset, and its paragraphs."""

import codecs
import re
from importlib.metadata import version

import chardet
from chardet import EncodingEra

from ingest_svc.extract import Extract, Source, Writer
from ingest_svc.parsing.detection import PLAIN

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PARAGRAPHS = re.compile(r"\n[ \t]*\n")
# Statistics over more than this cost time and change nothing.
_SAMPLE_BYTES = 64 * 1024
# The charsets of web and mail; with those of DOS and mainframes among the candidates, short texts are often mistaken.
_ERAS = EncodingEra.MODERN_WEB | EncodingEra.LEGACY_ISO


def parse(source: Source) -> Extract:
    """The text with its paragraphs as blocks; a warning where the charset was guessed."""
    text, charset, guessed = decode(source.data)
    writer = Writer()
    for paragraph in _PARAGRAPHS.split(text.replace("\r\n", "\n").replace("\r", "\n")):
        writer.block(paragraph)
    warnings = [f"charset guessed: {charset}"] if guessed else []
    return writer.extract(PLAIN, f"chardet {version('chardet')}", warnings=warnings)


def decode(data: bytes, declared: str = "") -> tuple[str, str, bool]:
    """The text of the bytes, its charset, and whether that is a guess.

    A byte-order mark counts first, then UTF-8 that decodes, then what the document declares, then statistics.
    """
    for mark, charset in _MARKS:
        if data.startswith(mark):
            return data.decode(charset, "replace"), charset, False
    for charset in ("utf-8", declared):
        text = _decoded(data, charset)
        if text is not None and "\x00" not in text:
            return text, charset, False
    found = chardet.detect(data, encoding_era=_ERAS, max_bytes=_SAMPLE_BYTES, compat_names=False)
    charset = found["encoding"] or "cp1252"
    return data.decode(charset, "replace"), charset, True


def _decoded(data: bytes, charset: str) -> str | None:
    try:
        return data.decode(charset) if charset else None
    except (UnicodeDecodeError, LookupError):
        return None
