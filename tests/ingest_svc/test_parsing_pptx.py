"""Slides made here by python-pptx."""

from io import BytesIO

from PIL import Image
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.oxml import parse_xml
from pptx.slide import Slide
from pptx.util import Inches

from ingest_svc.extract import BlockKind, Extract
from tests.ingest_svc.parsed import blocks, extract

TITLE_AND_BODY, TITLE_ONLY, BLANK = 1, 5, 6
DRAWING = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'


class Deck:
    """Slides, and what is read of them."""

    def __init__(self) -> None:
        self.deck = Presentation()

    def slide(self, layout: int, title: str = "") -> Slide:
        slide = self.deck.slides.add_slide(self.deck.slide_layouts[layout])
        if title:
            slide.shapes.title.text = title
        return slide

    def read(self) -> Extract:
        file = BytesIO()
        self.deck.save(file)
        return extract(file.getvalue())


def box(slide: Slide, left: float, top: float, text: str) -> None:
    """A text box at a place in inches."""
    slide.shapes.add_textbox(Inches(left), Inches(top), Inches(2), Inches(1)).text_frame.text = text


def test_a_slide_is_a_page_under_its_title() -> None:
    """Bodies are lists by their level; notes come last; a slide without a title stands under none."""
    deck = Deck()
    body = deck.slide(TITLE_AND_BODY, "Ponds").placeholders[1].text_frame
    body.text = "shallow"
    inner = body.add_paragraph()
    inner.text, inner.level = "warm", 1
    deck.deck.slides[0].notes_slide.notes_text_frame.text = "Say hello."
    box(deck.slide(BLANK), 1, 1, "Alone")
    found = deck.read()
    assert blocks(found) == [
        (BlockKind.HEADING, "Ponds"),
        (BlockKind.ITEM, "- shallow"),
        (BlockKind.ITEM, "  - warm"),
        (BlockKind.PARAGRAPH, "Say hello."),
        (BlockKind.PARAGRAPH, "Alone"),
    ]
    assert [block.page for block in found.blocks] == [1, 1, 1, 1, 2]
    assert [block.heading_path for block in found.blocks[3:]] == [("Ponds",), ()]
    assert (found.title, found.page_count) == ("Ponds", 2)


def test_shapes_are_read_from_the_top_and_the_left() -> None:
    """The order of drawing does not count; nearly the same height is side by side; a group stays together."""
    deck = Deck()
    slide = deck.slide(BLANK)
    box(slide, 1, 5, "bottom")
    box(slide, 5, 1, "right")
    box(slide, 1, 1.05, "left")
    group = slide.shapes.add_group_shape()
    for top, text in ((3.5, "second"), (3, "first")):
        inner = group.shapes.add_textbox(Inches(1), Inches(top), Inches(1), Inches(0.2))
        inner.text_frame.text = text
    assert deck.read().text.split() == ["left", "right", "first", "second", "bottom"]


def test_numbers_are_counted_and_marks_may_be_switched_off() -> None:
    """Numbered paragraphs get their numbers, from 1 again after another; `buNone` makes a paragraph of an item."""
    deck = Deck()
    frame = deck.slide(TITLE_AND_BODY, "Steps").placeholders[1].text_frame
    frame.text = "First:"
    marks = ["buNone", 'buAutoNum type="arabicPeriod"', 'buAutoNum type="arabicPeriod"', "buNone"]
    for text in ("go", "stay", "Then:"):
        frame.add_paragraph().text = text
    for paragraph, mark in zip(frame.paragraphs, marks, strict=True):
        paragraph._p.get_or_add_pPr().append(parse_xml(f"<a:{mark} {DRAWING}/>"))
    assert deck.read().text == "Steps\n\nFirst:\n\n1. go\n2. stay\n\nThen:"


def test_tables_repeat_what_is_merged() -> None:
    """A cell that spans columns or rows stands in each of them."""
    deck = Deck()
    table = deck.slide(TITLE_ONLY, "T").shapes.add_table(3, 2, 0, Inches(2), Inches(4), Inches(2)).table
    table.cell(0, 0).merge(table.cell(0, 1))
    table.cell(0, 0).text = "wide"
    table.cell(1, 0).merge(table.cell(2, 0))
    table.cell(1, 0).text, table.cell(1, 1).text, table.cell(2, 1).text = "tall", "a", "b"
    assert blocks(deck.read())[-1] == (
        BlockKind.TABLE,
        "| wide | wide |\n| --- | --- |\n| tall | a |\n| tall | b |",
    )


def test_charts_give_their_values() -> None:
    """A chart is its title, its kind, and a table of its series by category."""
    deck = Deck()
    data = CategoryChartData()
    data.categories = ["2023", "2024"]
    data.add_series("Ducks", (1.5, 2))
    data.add_series("Geese", (0.1 + 0.2, None))
    place = (Inches(1), Inches(2), Inches(4), Inches(3))
    chart = deck.slide(TITLE_ONLY, "T").shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *place, data).chart
    chart.has_title = True
    chart.chart_title.text_frame.text = "Birds a year"
    assert deck.read().text == (
        "T\n\nBirds a year\n\nBar chart\n\n"
        "|  | Ducks | Geese |\n| --- | --- | --- |\n| 2023 | 1.5 | 0.3 |\n| 2024 | 2 |  |"
    )


def test_pictures_give_what_a_person_wrote_of_them() -> None:
    """A description is read; a file's name and a guess of the program are not."""
    deck = Deck()
    slide = deck.slide(BLANK)
    file = BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    for place, words in enumerate(("duck.png", "A duck. Description automatically generated", "A duck on its pond")):
        picture = slide.shapes.add_picture(file, Inches(place), 0)
        picture._element.nvPicPr.cNvPr.set("descr", words)
    assert deck.read().text == "A duck on its pond"
