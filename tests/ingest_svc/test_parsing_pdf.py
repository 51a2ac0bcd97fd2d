"""PDFs made here: the order of reading, headings, tables, running titles, scanned pages."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from fpdf import FPDF, XPos, YPos
from fpdf.enums import TableBordersLayout
from PIL import Image

from ingest_svc.extract import BlockKind, Extract, Source, Writer
from ingest_svc.parser_processes import ParserLimits, open_parser_processes
from ingest_svc.parsing import pdf_blocks
from ingest_svc.parsing.pdf_layout import Line, Part
from ingest_svc.parsing.pdf_words import Box, Font
from ingest_svc.parsing.reading import read
from meshkit.errors import MeshError

WORDS = "The duck swims on the pond and eats the bread that children throw to it from the shore every day. "


def page(draw: Callable[[FPDF], object], document: FPDF | None = None) -> FPDF:
    """The document with a page more, on which something is drawn."""
    document = document or FPDF()
    document.add_page()
    document.set_font("Helvetica", size=11)
    draw(document)
    return document


def extract(document: FPDF) -> Extract:
    """What is read of it."""
    return read(Source(bytes(document.output())), 1_000_000)


def texts(found: Extract, kind: BlockKind | None = None) -> list[str]:
    """The blocks' texts, those of one kind where it is given."""
    text = found.text.encode()
    return [text[block.start : block.end].decode() for block in found.blocks if kind in (None, block.kind)]


def column(document: FPDF, x: float, y: float, text: str) -> None:
    """Write the text in lines of 80 mm."""
    document.set_xy(x, y)
    document.multi_cell(80, 5, text, new_x=XPos.LEFT, new_y=YPos.NEXT)


def test_columns_are_read_one_after_the_other() -> None:
    """A title over two columns comes first, then the left column, then the right one, drawn row by row or not."""

    def draw(document: FPDF) -> None:
        document.set_font("Helvetica", size=20)
        document.cell(text="Two columns that are parted by a gap, and a title")
        document.set_font("Helvetica", size=11)
        column(document, 110, 40, "Right. " + WORDS * 3)
        column(document, 10, 40, "Left. " + WORDS * 3)

    found = extract(page(draw))
    assert [text.split()[0] for text in texts(found)] == ["Two", "Left.", "Right."]
    assert texts(found)[1] == " ".join(("Left. " + WORDS * 3).split())
    assert found.blocks[2].heading_path == ("Two columns that are parted by a gap, and a title",)


def test_headings_make_paths_by_size_and_weight() -> None:
    """Larger lines are headings by their size, bold ones below them; bold words in a line are none."""

    def draw(document: FPDF) -> None:
        for size, style, text in ((20, "", "Guide"), (15, "", "Ponds"), (11, "B", "Depth")):
            document.set_font("Helvetica", style, size)
            document.cell(text=text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
            document.set_font("Helvetica", size=11)
            document.multi_cell(0, 5, f"**Note** on {text}: {WORDS * 2}", markdown=True, new_x=XPos.LMARGIN)
            document.ln(6)

    found = extract(page(draw))
    assert [block.heading_path for block in found.blocks if block.kind is BlockKind.PARAGRAPH] == [
        ("Guide",),
        ("Guide", "Ponds"),
        ("Guide", "Ponds", "Depth"),
    ]


def test_running_titles_and_page_numbers_are_left_out() -> None:
    """What stands at the edge of each page goes; each block has its page, and a sentence goes over to the next one."""
    document = FPDF()
    for number in range(1, 5):

        def draw(document: FPDF, number: int = number) -> None:
            document.text(10, 8, "Duck Herald")
            document.text(100, 290, f"Page {number} of 4")
            document.set_y(30)
            document.multi_cell(0, 5, f"Number {number} begins here. {WORDS * 4}")

        page(draw, document)
    found = extract(document)
    assert [text[:8] for text in texts(found)] == ["Number 1", "Number 2", "Number 3", "Number 4"]
    assert [block.page for block in found.blocks] == [1, 2, 3, 4]
    assert "Herald" not in found.text
    assert "of 4" not in found.text


ROWS = (("Pond", "Ducks", "Depth"), ("North", "12", ""), ("South lake", "7", "3 m"), ("", "4", "2 m"))
TABLE = "| Pond | Ducks | Depth |\n| --- | --- | --- |\n| North | 12 |  |\n| South lake | 7 | 3 m |\n|  | 4 | 2 m |"


@pytest.mark.parametrize("borders", [TableBordersLayout.ALL, TableBordersLayout.NONE])
def test_tables_become_markdown(borders: TableBordersLayout) -> None:
    """A table with rules and one without come out alike, empty cells in their places, the text around them apart."""

    def draw(document: FPDF) -> None:
        document.multi_cell(0, 5, WORDS, new_x=XPos.LMARGIN)
        document.ln(5)
        with document.table(ROWS, borders_layout=borders, first_row_as_headings=False):
            pass
        document.ln(5)
        document.multi_cell(0, 5, WORDS)

    found = extract(page(draw))
    assert [(block.kind, text) for block, text in zip(found.blocks, texts(found), strict=True)] == [
        (BlockKind.PARAGRAPH, WORDS.strip()),
        (BlockKind.TABLE, TABLE),
        (BlockKind.PARAGRAPH, WORDS.strip()),
    ]


def test_prose_and_lists_are_no_tables() -> None:
    """Justified prose with wide spaces stays prose; items keep their marks and their wrapped lines."""

    def draw(document: FPDF) -> None:
        document.multi_cell(45, 5, WORDS * 5, align="J", new_x=XPos.LMARGIN)
        document.ln(5)
        for number in range(1, 5):
            document.text(10, 200 + 10 * number, f"{number}.")
            document.text(20, 200 + 10 * number, "an item of the list")

    found = extract(page(draw))
    assert texts(found) == [(WORDS * 5).strip(), *(f"{number}. an item of the list" for number in range(1, 5))]
    assert [block.kind for block in found.blocks[1:]] == [BlockKind.ITEM] * 4


def test_side_heads_stay_with_their_text() -> None:
    """A label beside a paragraph comes first and breaks no sentence; the dots of a table of contents are one sign."""

    def draw(document: FPDF) -> None:
        document.text(10, 34, "Purpose")
        document.set_xy(50, 30)
        document.multi_cell(140, 5, WORDS * 3)
        for number in range(1, 4):
            document.text(10, 100 + 6 * number, f"Chapter {number} {'. ' * 40}")
            document.text(190, 100 + 6 * number, str(10 * number))

    found = texts(extract(page(draw)))
    assert found[0] == f"Purpose {(WORDS * 3).strip()}"
    assert found[1].startswith("| Chapter 1 … | 10 |")


def test_turned_pages_are_read_upright() -> None:
    """Text that runs upwards is read in its own order, that of the other way after it."""

    def draw(document: FPDF) -> None:
        with document.rotation(90, 100, 150):
            column(document, 100, 150, WORDS * 2)
        document.text(10, 20, "upright")

    found = extract(page(draw))
    assert texts(found) == [(WORDS * 2).strip(), "upright"]


def test_code_keeps_its_lines() -> None:
    """Lines in a font of one width keep their breaks and their indentation."""

    def draw(document: FPDF) -> None:
        document.multi_cell(0, 5, WORDS * 2, new_x=XPos.LMARGIN)
        document.set_font("Courier", size=10)
        document.ln(5)
        for text in ("def quack(duck):", "    return duck.voice", "quack(donald)"):
            document.cell(text=text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    assert texts(extract(page(draw)), BlockKind.CODE) == ["def quack(duck):\n    return duck.voice\nquack(donald)"]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["鸭子在池塘里", "游泳"], "鸭子在池塘里游泳"),
        (["단계에 돌", "입하였다고 ", "판매"], "단계에 돌입하였다고 판매"),
        (["단계에", "돌입하였다고", "판매"], "단계에 돌입하였다고 판매"),
        (["adip\xad", "iscing elit"], "adipiscing elit"),
    ],
)
def test_lines_are_joined_as_their_script_wraps(lines: list[str], text: str) -> None:
    """Chinese without spaces; Korean without one where other lines end in a space, and this one within a word."""
    writer, font = Writer(), Font(size=10)
    page: list[Part] = [
        Line(line.strip(), Box(0, 12 * place, 100, 12 * place + 10), font, 0, 100, line.endswith(" "))
        for place, line in enumerate(lines)
    ]
    pdf_blocks.write([page], writer)
    assert writer.extract("", "").text == text


def scan(document: FPDF) -> None:
    """An image over the whole page; the words on it are those of the stand-in for tesseract."""
    document.image(Image.new("L", (60, 80), 255), 0, 0, 210, 297)


def tesseract(folder: Path, script: str) -> str:
    """A PATH on which a tesseract of ours comes first; it gets the languages as $4 and an image on stdin."""
    program = folder / "tesseract"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return os.pathsep.join((str(folder), os.environ["PATH"]))


async def parsed(folder: Path, document: FPDF, timeout_s: float = 30) -> Extract:
    """What a parser's process makes of it, German wanted."""
    file = folder / "scan.pdf"
    document.output(str(file))
    limits = ParserLimits(timeout_s, 1024**3, 1_000_000, "deu")
    async with open_parser_processes(1, limits) as parsers:
        return await parsers.parse(file, "scan.pdf")


async def test_scanned_pages_are_read_by_tesseract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets a grey image of the page and the languages; its paragraphs are blocks, and a warning names the pages."""
    script = 'head -c 2; echo " $4"; cat >/dev/null; printf "of two\\nlines\\n\\nand two\\n\\f"'
    monkeypatch.setenv("PATH", tesseract(tmp_path, script))
    document = page(scan, page(lambda document: document.text(10, 20, "Text of its own.")))
    found = await parsed(tmp_path, document)
    assert texts(found) == ["Text of its own.", "P5 deu of two lines", "and two"]
    assert [block.page for block in found.blocks] == [1, 2, 2]
    assert found.warnings == ("pages read by OCR: 2",)
    assert "tesseract (deu)" in found.parser


async def test_scanned_pages_without_tesseract_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of scanned pages has NO_TEXT and says that OCR is missing; one with text names them."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MeshError, match=r"OCR \(tesseract\) is not installed") as failed:
        await parsed(tmp_path, page(scan))
    assert (failed.value.reason, "ocr" in failed.value.metadata) == ("NO_TEXT", True)
    found = await parsed(tmp_path, page(scan, page(lambda document: document.text(10, 20, "Text."))))
    assert found.warnings == ("scanned pages without text: 2 (OCR (tesseract) is not installed)",)


async def test_a_tesseract_that_fails_or_hangs_leaves_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words stand in the warning; one that hangs is ended before the parser's time is over."""
    document = page(scan, page(lambda document: document.text(10, 20, "Text.")))
    monkeypatch.setenv("PATH", tesseract(tmp_path, "cat >/dev/null; echo no such language >&2; exit 1"))
    found = await parsed(tmp_path, document)
    assert found.warnings == ("scanned pages without text: 2 (OCR failed: no such language)",)
    monkeypatch.setenv("PATH", tesseract(tmp_path, f"echo $$ >{tmp_path}/pid; exec sleep 600"))
    found = await parsed(tmp_path, document, timeout_s=4.5)
    assert texts(found) == ["Text."]
    assert "OCR failed" in found.warnings[0]
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()
