"""RTF: its text, paragraph by paragraph, its tables' rows."""

import re
from importlib.metadata import version

from striprtf.striprtf import rtf_to_text

from ingest_svc.extract import Extract, Source, Writer
from ingest_svc.parsing.detection import RTF

# Pictures are hexadecimal digits, most of many a file's bytes.
_PICTURES = re.compile(rb"[0-9a-fA-F\r\n]{500,}")
_CHARSET = re.compile(rb"\\ansicpg(\d+)")


def parse(source: Source) -> Extract:
    """Lines of cells as tables, the others as paragraphs; raises UNREADABLE_DOCUMENT by way of `read`."""
    declared = _CHARSET.search(source.data[:1024])
    charset = f"cp{declared[1].decode()}" if declared else "cp1252"
    text = rtf_to_text(_PICTURES.sub(b"", source.data).decode("latin-1"), encoding=charset, errors="replace")
    writer = Writer()
    rows: list[list[str]] = []
    for line in text.splitlines():
        if line.endswith("|"):
            rows.append(line.split("|"))
            continue
        writer.table(rows)
        rows = []
        writer.block(line)
    writer.table(rows)
    return writer.extract(RTF, f"striprtf {version('striprtf')}")
