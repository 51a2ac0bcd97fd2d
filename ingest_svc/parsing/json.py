"""JSON, JSON Lines and notebooks: records as `path: value` lines; a notebook's cells."""

import json
from collections.abc import Iterator
from typing import Any

from ingest_svc.extract import BlockKind, Extract, Source, Writer
from ingest_svc.parsing import markdown, plain_text
from ingest_svc.parsing.detection import JSON

JSON_LINES = "application/jsonl"
NOTEBOOK = "application/x-ipynb+json"
_PARSER = "json 1"
# Characters of a line that is rather prose than a value.
_PROSE = 200


def parse(source: Source) -> Extract:
    """A block a record: an item of the outermost list or of one just inside, or a line of JSON Lines.

    Text that is no JSON is read as it is.
    """
    text, charset, guessed = plain_text.decode(source.data)
    warnings = [f"charset guessed: {charset}"] if guessed else []
    try:
        document = json.loads(text)
    except ValueError:
        records = list(_lines(text))
        if not records:
            as_text = plain_text.parse(source)
            return as_text.model_copy(update={"warnings": (*as_text.warnings, "not valid JSON: read as text")})
        return _records(records, JSON_LINES, warnings)
    if isinstance(document, dict) and isinstance(document.get("cells"), list) and "nbformat" in document:
        return _notebook(document, warnings)
    return _records(document if isinstance(document, list) else [document], JSON, warnings)


def _lines(text: str) -> Iterator[Any]:
    """The values of the lines; none where one of them is no JSON, but for a last line that was cut."""
    lines = [line for line in text.splitlines() if line.strip()]
    values = []
    for number, line in enumerate(lines, 1):
        try:
            values.append(json.loads(line))
        except ValueError:
            if number < len(lines) or number == 1:
                return
    yield from values


def _records(records: list[Any], media_type: str, warnings: list[str]) -> Extract:
    writer = Writer()
    for record in records:
        for path, part in _parts(record):
            _write(_flat(part, path), writer)
    title = records[0].get("title") if len(records) == 1 and isinstance(records[0], dict) else ""
    return writer.extract(media_type, _PARSER, title=title if isinstance(title, str) else "", warnings=warnings)


def _parts(record: Any) -> Iterator[tuple[str, Any]]:
    """A record with its path; one that holds lists of records is parted into these and what is beside them."""
    lists = {key: value for key, value in record.items() if _is_nested(value)} if isinstance(record, dict) else {}
    yield "", {key: value for key, value in record.items() if key not in lists} if lists else record
    for key, items in lists.items():
        yield from ((f"{key}[{place}]", item) for place, item in enumerate(items))


def _write(lines: Iterator[str], writer: Writer) -> None:
    """Write short lines together, as code is cut at lines; those of prose by themselves, as it is cut at sentences."""
    short: list[str] = []
    for line in lines:
        if len(line) < _PROSE and "\n" not in line:
            short.append(line)
            continue
        writer.block("\n".join(short), BlockKind.CODE)
        short = []
        writer.block(line)
    writer.block("\n".join(short), BlockKind.CODE)


def _is_nested(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict | list) for item in value)


def _flat(value: Any, path: str) -> Iterator[str]:
    """`a.b: value` lines; a list of plain values is one line, of others a line or more an item."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif _is_nested(value):
        for place, item in enumerate(value):
            yield from _flat(item, f"{path}[{place}]")
    elif value not in (None, "", []):
        words = ", ".join(map(_word, value)) if isinstance(value, list) else _word(value)
        yield f"{path}: {words}" if path else words


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _notebook(document: dict[str, Any], warnings: list[str]) -> Extract:
    """Markdown cells as Markdown, code cells as code, and the text that code cells put out."""
    writer = Writer()
    for cell in document["cells"]:
        source = _joined(cell.get("source", ""))
        if cell.get("cell_type") == "markdown":
            writer.extend(markdown.parse(Source(source.encode())))
        else:
            writer.block(source, BlockKind.CODE if cell.get("cell_type") == "code" else BlockKind.PARAGRAPH)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            writer.block(_joined(output.get("text", data.get("text/plain", ""))), BlockKind.CODE)
    fields = document.get("metadata", {})
    title = fields.get("title", "") if isinstance(fields, dict) else ""
    return writer.extract(NOTEBOOK, _PARSER, title=title if isinstance(title, str) else "", warnings=warnings)


def _joined(text: Any) -> str:
    """A notebook's text, which is one string or a list of them."""
    return "".join(map(str, text)) if isinstance(text, list) else str(text)
