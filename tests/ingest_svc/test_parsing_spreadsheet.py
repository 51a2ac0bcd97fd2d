"""Spreadsheets made here by XlsxWriter, and CSV."""

from collections.abc import Callable
from datetime import datetime
from io import BytesIO

import pytest
import xlsxwriter
from xlsxwriter.workbook import Workbook

from ingest_svc.extract import BlockKind
from meshkit.errors import MeshError
from tests.ingest_svc.parsed import blocks, changed, extract

HEADER = "| a | b |\n| --- | --- |\n"


def workbook(fill: Callable[[Workbook], object]) -> bytes:
    """The bytes of a workbook that was filled."""
    file = BytesIO()
    with xlsxwriter.Workbook(file, {"in_memory": True}) as book:
        fill(book)
    return file.getvalue()


def test_values_are_written_as_readers_write_them() -> None:
    """Whole numbers have no point, dates are ISO, truth is TRUE, a formula is its value."""

    def fill(book: Workbook) -> None:
        sheet = book.add_worksheet("Data")
        day = book.add_format({"num_format": "yyyy-mm-dd"})
        minute = book.add_format({"num_format": "yyyy-mm-dd hh:mm"})
        sheet.write_row(0, 0, ["a", "b"])
        sheet.write_row(1, 0, [3.0, 0.1 + 0.2])
        sheet.write_boolean(2, 0, True)
        sheet.write_formula(2, 1, "=1+1", None, 2)
        sheet.write_datetime(3, 0, datetime.fromisoformat("2024-02-29"), day)
        sheet.write_datetime(3, 1, datetime.fromisoformat("2024-02-29T12:30"), minute)

    found = extract(workbook(fill))
    assert blocks(found) == [
        (BlockKind.HEADING, "Data"),
        (BlockKind.TABLE, HEADER + "| 3 | 0.3 |\n| TRUE | 2 |\n| 2024-02-29 | 2024-02-29 12:30:00 |"),
    ]


def test_tables_of_a_sheet_are_parted_where_it_is_blank() -> None:
    """Side by side or one below the other; a title above a table is a paragraph; merged cells stand where they span."""

    def fill(book: Workbook) -> None:
        sheet = book.add_worksheet("S")
        sheet.merge_range("B2:C2", "Title")
        for row, values in enumerate((["a", "b"], [1, 2]), 2):
            sheet.write_row(row, 1, values)
            sheet.write_row(row + 2, 5, values)
        sheet.merge_range("B7:B8", "tall")
        sheet.write_column("C7", ["x", "y"])

    found = extract(workbook(fill))
    assert blocks(found)[1:] == [
        (BlockKind.PARAGRAPH, "Title"),
        (BlockKind.TABLE, HEADER + "| 1 | 2 |"),
        (BlockKind.TABLE, "| tall | x |\n| --- | --- |\n| tall | y |"),
        (BlockKind.TABLE, HEADER + "| 1 | 2 |"),
    ]


def test_charts_stand_with_their_sheet_and_hidden_sheets_do_not() -> None:
    """A chart's cached values are read; empty sheets have no heading; a hidden one is told of."""

    def fill(book: Workbook) -> None:
        sheet = book.add_worksheet("Shown")
        sheet.write_column("A1", [1, 2])
        chart = book.add_chart({"type": "line"})
        chart.add_series({"values": "=Shown!$A$1:$A$2", "name": "Ducks"})
        chart.set_title({"name": "Trend"})
        sheet.insert_chart("C1", chart)
        book.add_worksheet("Empty")
        hidden = book.add_worksheet("Hidden")
        hidden.write("A1", "secret")
        hidden.hide()

    found = extract(workbook(fill))
    assert [text for _, text in blocks(found)][2:4] == ["Trend", "Line chart"]
    assert "Ducks" in found.text
    assert "Empty" not in found.text
    assert "secret" not in found.text
    assert found.warnings == ("hidden sheets left out: Hidden",)


def test_broken_charts_and_merged_blanks_leave_the_cells() -> None:
    """Cells are read where charts cannot be, and a range merged above them changes none."""

    def fill(book: Workbook) -> None:
        sheet = book.add_worksheet("S")
        sheet.write_column("C5", ["a", "b", "c"])
        chart = book.add_chart({"type": "line"})
        chart.add_series({"values": "=S!$C$5:$C$6"})
        sheet.insert_chart("E1", chart)
        blank = book.add_format()
        sheet.merge_range("A1:B2", "", blank)

    def broken(name: str, part: bytes) -> bytes:
        return part[:-9] if name == "xl/drawings/_rels/drawing1.xml.rels" else part

    found = extract(changed(workbook(fill), broken))
    assert (found.text, found.warnings) == ("S\n\n| a |\n| --- |\n| b |\n| c |", ("charts could not be read",))


def test_a_workbook_without_values_has_no_text() -> None:
    """Names of empty sheets are not text."""
    with pytest.raises(MeshError) as failed:
        extract(workbook(lambda book: book.add_worksheet("Empty")))
    assert failed.value.reason == "NO_TEXT"


@pytest.mark.parametrize(
    ("data", "uri"),
    [
        (b"a,b\n1,2\n", "x.csv"),
        (b'"a";"b"\n"1";"2"\n', "x.csv"),
        (b"a\tb\r\n1\t2\r\n", "x.tsv"),
        (b"a|b\n1|2", "x.csv"),
        (b"sep=/\na/b\n1/2", "x.csv"),
        (b"\xef\xbb\xbfa,b\n\n1,2\n", "x.csv"),
        ("a,b\n1,2\n".encode("utf-16"), "x.csv"),
    ],
)
def test_csv_of_any_dialect_is_a_table(data: bytes, uri: str) -> None:
    """Delimiter, quotes, line ends and charset are found out."""
    assert blocks(extract(data, uri)) == [(BlockKind.TABLE, HEADER + "| 1 | 2 |")]


def test_csv_cells_may_hold_anything() -> None:
    """Quoted cells keep delimiters and lose line ends; short rows are filled up; long ones make columns."""
    found = extract('name;note\nA;"x;y\nz"\nB\nC;1;2\n', "x.csv")
    assert found.text == "| name | note |  |\n| --- | --- | --- |\n| A | x;y z |  |\n| B |  |  |\n| C | 1 | 2 |"
    assert found.warnings == ("rows differ in length",)
    assert extract("1,5;2,5\n3,5;4,5\n", "x.csv").text == "| 1,5 | 2,5 |\n| --- | --- |\n| 3,5 | 4,5 |"


def test_tables_of_text_are_known_without_a_name() -> None:
    """Lines with one number of delimiters are CSV; prose with commas is not."""
    assert extract("id\tname\n1\tduck\n2\tgoose\n3\tswan\n").media_type == "text/csv"
    assert extract("a,b,c\n1,2,3\n4,5,6\n7,8,9\n", "x.txt").media_type == "text/csv"
    assert extract("Well, so\nit goes, and\non, and on\nand on.\n").media_type == "text/plain"
