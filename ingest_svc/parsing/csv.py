"""CSV: its charset and its dialect found out, its rows as a table."""

import csv
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from io import StringIO

from ingest_svc.extract import Extract, Source, Writer
from ingest_svc.parsing.detection import CSV
from ingest_svc.parsing.plain_text import decode

_DELIMITERS = "\t;|,"
# Excel names the delimiter in a line of its own.
_NAMED = re.compile(r"sep=(.)\r?\n")
_SAMPLE_ROWS = 200


def parse(source: Source) -> Extract:
    """The rows as one table, the first as its header; a warning where the charset was guessed or rows are ragged."""
    text, charset, guessed = decode(source.data)
    warnings = [f"charset guessed: {charset}"] if guessed else []
    named = _NAMED.match(text)
    rows = list(_rows(text[named.end() :], named[1]) if named else _rows(text, _delimiter(text)))
    if len({len(row) for row in rows if row}) > 1:
        warnings.append("rows differ in length")
    writer = Writer()
    writer.table(rows)
    return writer.extract(CSV, f"chardet {version('chardet')}", warnings=warnings)


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    # A cell may be as long as the text; the module's own bound is 128 KiB.
    csv.field_size_limit(sys.maxsize)
    return csv.reader(StringIO(text.replace("\x00", ""), newline=""), delimiter=delimiter, skipinitialspace=True)


def _delimiter(text: str) -> str:
    """The delimiter by which most of the first rows have one number of cells, and more than one; else a comma.

    Of two that serve alike the comma is the last: it parts decimals too.
    """
    shares = {mark: _agreement(text, mark) for mark in _DELIMITERS}
    return max(shares, key=lambda mark: shares[mark]) if any(shares.values()) else ","


def _agreement(text: str, delimiter: str) -> float:
    """The share of rows as wide as most are; 0 where most have one cell."""
    sizes = [len(row) for _, row in zip(range(_SAMPLE_ROWS), _rows(text, delimiter), strict=False) if row]
    width = max(set(sizes), key=lambda size: (sizes.count(size), size), default=1)
    return sizes.count(width) / len(sizes) if width > 1 else 0.0
