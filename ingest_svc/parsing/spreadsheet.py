"""Spreadsheets (XLSX, XLSB, XLS, ODS): each sheet under its name, its tables, and what its charts show."""

from collections.abc import Iterator
from datetime import datetime, time
from importlib.metadata import version
from io import BytesIO
from itertools import groupby

from lxml.etree import XMLSyntaxError
from python_calamine import CalamineSheet, CalamineWorkbook, PasswordError, SheetTypeEnum, SheetVisibleEnum

from ingest_svc.extract import Extract, Source, Writer
from ingest_svc.parsing import charts, detection
from ingest_svc.parsing.office_encryption import decrypted

_MAX_WHOLE = 1e15
Rows = list[list[str]]


def parse(source: Source) -> Extract:
    """The visible sheets, a table for each range that blank rows and columns set apart; formulas by their values."""
    workbook, source = _open(source)
    writer, hidden, warnings = Writer(), [], []
    try:
        drawn = charts.of_sheets(source.data)
    except (KeyError, ValueError, XMLSyntaxError):
        # Cells are read by another library, which takes packages that this one does not.
        drawn, warnings = {}, ["charts could not be read"]
    for number, sheet in enumerate(workbook.sheets_metadata):
        if sheet.visible is not SheetVisibleEnum.Visible:
            hidden.append(sheet.name)
            continue
        rows = _cells(workbook.get_sheet_by_index(number)) if sheet.typ is SheetTypeEnum.WorkSheet else []
        shown = drawn.get(sheet.name, [])
        if shown or any(map(any, rows)):
            writer.heading(1, sheet.name)
        _write(rows, writer)
        for chart in shown:
            charts.write(chart, writer)
    return writer.extract(
        detection.detect(source.data, source.uri),
        f"python-calamine {version('python-calamine')}",
        warnings=[*warnings, f"hidden sheets left out: {', '.join(hidden)}"] if hidden else warnings,
    )


def _open(source: Source) -> tuple[CalamineWorkbook, Source]:
    """The workbook and the bytes it is in: XLS is encrypted inside of its file; raises PASSWORD_REQUIRED."""
    try:
        return CalamineWorkbook.from_filelike(BytesIO(source.data)), source
    except PasswordError:
        source = decrypted(source)
        return CalamineWorkbook.from_filelike(BytesIO(source.data)), source


def _cells(sheet: CalamineSheet) -> Rows:
    """The sheet's used range as text, a merged cell's words in each cell that it spans."""
    rows = [[_word(value) for value in row] for row in sheet.to_python()]
    top, left = sheet.start or (0, 0)
    for (first_row, first_column), (last_row, last_column) in sheet.merged_cell_ranges or ():
        span = rows[max(first_row - top, 0) : max(last_row - top + 1, 0)]
        columns = slice(max(first_column - left, 0), max(last_column - left + 1, 0))
        words = next((cell for row in span for cell in row[columns] if cell), "")
        for row in span:
            row[columns] = [words] * len(row[columns])
    return rows


def _word(value: object) -> str:
    """A cell's value as a reader writes it: whole numbers without a point, dates as ISO 8601 has them."""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _MAX_WHOLE else f"{value:.15g}"
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ")
    return str(value).strip()


def _write(rows: Rows, writer: Writer) -> None:
    """Write the tables of a range, from the top down and there from the left; a title above one is a paragraph."""
    for rest in _regions(rows):
        table = rest
        while len(table) > 1 and _is_title(table[0]):
            writer.block(table[0][0])
            table = table[1:]
        writer.table(table)


def _is_title(row: list[str]) -> bool:
    return len(row) > 1 and row[0] != "" and set(row[1:]) <= {"", row[0]}


def _regions(rows: Rows) -> list[Rows]:
    """The parts that blank rows and, within these, blank columns set apart, until there are none."""
    bands = [rows[run] for run in _runs([any(row) for row in rows])]
    regions = [[row[run] for row in band] for band in bands for run in _runs(_used_columns(band))]
    return regions if len(regions) == 1 else [region for part in regions for region in _regions(part)]


def _used_columns(rows: Rows) -> list[bool]:
    return [any(row[column] for row in rows) for column in range(len(rows[0]))]


def _runs(used: list[bool]) -> Iterator[slice]:
    """The longest stretches that are used throughout."""
    start = 0
    for is_used, group in groupby(used):
        end = start + sum(1 for _ in group)
        if is_used:
            yield slice(start, end)
        start = end
