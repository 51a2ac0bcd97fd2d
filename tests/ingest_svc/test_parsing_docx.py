"""DOCX made here: what python-docx can write, and the rest put into its XML."""

import zipfile
from io import BytesIO

import docx
import pytest
from docx.document import Document
from docx.oxml import parse_xml
from msoffcrypto.format.ooxml import OOXMLFile

from ingest_svc.extract import BlockKind
from meshkit.errors import MeshError
from tests.ingest_svc.parsed import blocks, changed, extract, texts

NAMESPACES = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
    'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
)


def saved(document: Document) -> bytes:
    """The document's bytes."""
    file = BytesIO()
    document.save(file)
    return file.getvalue()


def with_xml(*paragraphs: str) -> bytes:
    """A document with these elements, each the inside of a `w:p` or a whole `w:tbl`."""
    document = docx.Document()
    for inside in paragraphs:
        element = inside if inside.startswith("<w:tbl>") else f"<w:p>{inside}</w:p>"
        element = element.replace(">", f" {NAMESPACES}>", 1)
        document.element.body.insert(len(document.element.body) - 1, parse_xml(element))
    return saved(document)


def cell(text: str, properties: str = "") -> str:
    """A table's cell."""
    return f"<w:tc><w:tcPr>{properties}</w:tcPr><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:tc>"


def test_headings_lists_and_tables() -> None:
    """Headings make paths, list paragraphs items with Word's own numbers, and a merged cell stands where it spans."""
    document = docx.Document()
    document.core_properties.title = "Guide"
    document.add_heading("Intro", 1)
    document.add_paragraph("Welcome.")
    document.add_paragraph("first", style="List Bullet")
    document.add_paragraph("one", style="List Number")
    document.add_paragraph("two", style="List Number")
    table = document.add_table(2, 2)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"
    table.cell(1, 0).text, table.cell(1, 1).text = "a", "b|c"
    found = extract(saved(document))
    assert blocks(found) == [
        (BlockKind.HEADING, "Intro"),
        (BlockKind.PARAGRAPH, "Welcome."),
        (BlockKind.ITEM, "- first"),
        (BlockKind.ITEM, "1. one"),
        (BlockKind.ITEM, "2. two"),
        (BlockKind.TABLE, "| wide | wide |\n| --- | --- |\n| a | b\\|c |"),
    ]
    assert (found.title, found.blocks[1].heading_path) == ("Guide", ("Intro",))


def test_cells_merged_downwards_and_tables_in_cells() -> None:
    """A cell that goes on below stands in each row; a table in a cell gives its words; a lone cell is no table."""
    inner = f"<w:tbl><w:tr>{cell('x')}{cell('y')}</w:tr></w:tbl>"
    nested = f"<w:tc>{inner}<w:p/></w:tc>"
    down = '<w:vMerge w:val="restart"/>'
    table = (
        f"<w:tbl><w:tr>{cell('a')}{cell('b')}</w:tr>"
        f"<w:tr>{cell('tall', down)}{nested}</w:tr><w:tr>{cell('', '<w:vMerge/>')}{cell('z')}</w:tr></w:tbl>"
    )
    lone = f"<w:tbl><w:tr><w:tc><w:p><w:r><w:t>boxed</w:t></w:r></w:p>{inner}</w:tc></w:tr></w:tbl>"
    found = extract(with_xml(table, lone))
    assert blocks(found) == [
        (BlockKind.TABLE, "| a | b |\n| --- | --- |\n| tall | x y |\n| tall | z |"),
        (BlockKind.PARAGRAPH, "boxed"),
        (BlockKind.TABLE, "| x | y |\n| --- | --- |"),
    ]


def test_only_the_text_that_stands_is_read() -> None:
    """Insertions count, deletions and field codes do not; a text box follows its paragraph, once."""
    box = "<w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent>"
    found = extract(
        with_xml(
            "<w:ins><w:r><w:t>new</w:t></w:r></w:ins><w:del><w:r><w:delText>old</w:delText></w:r></w:del>"
            "<w:r><w:instrText>PAGE</w:instrText><w:tab/><w:t>text</w:t></w:r>",
            f"<mc:AlternateContent><mc:Choice Requires='wps'>{box}</mc:Choice>"
            f"<mc:Fallback>{box}</mc:Fallback></mc:AlternateContent><w:r><w:t>anchor</w:t></w:r>",
        )
    )
    assert texts(found, BlockKind.PARAGRAPH) == ["new\ttext", "anchor", "boxed"]


def test_pictures_give_what_a_person_wrote_of_them() -> None:
    """A description stands after its paragraph; a file's name is none."""
    drawing = "http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing"
    pictures = "".join(f'<p:docPr xmlns:p="{drawing}" descr="{words}"/>' for words in ("a.png", "A duck swims"))
    found = extract(with_xml(f"<w:r><w:drawing>{pictures}</w:drawing><w:t>Figure 1</w:t></w:r>"))
    assert found.text == "Figure 1\n\nA duck swims"


def test_headers_come_first_and_page_numbers_not_at_all() -> None:
    """A header's text stands once, under no heading."""
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = "House rules"
    footer = document.sections[0].footer.paragraphs[0]
    footer.text = "Page "
    footer._p.append(parse_xml(f'<w:fldSimple {NAMESPACES} w:instr="PAGE"><w:r><w:t>1</w:t></w:r></w:fldSimple>'))
    document.add_heading("One", 1)
    assert extract(saved(document)).text == "House rules\n\nOne"


@pytest.mark.parametrize(
    ("omml", "latex"),
    [
        ("<m:sSup><m:e>{x}</m:e><m:sup>{n}</m:sup></m:sSup>", "x^{n}"),
        ("<m:f><m:num>{x}</m:num><m:den>{n}</m:den></m:f>", r"\frac{x}{n}"),
        ('<m:f><m:fPr><m:type m:val="lin"/></m:fPr><m:num>{x}</m:num><m:den>{n}</m:den></m:f>', "x/n"),
        ("<m:rad><m:deg>{n}</m:deg><m:e>{x}</m:e></m:rad>", r"\sqrt[n]{x}"),
        (
            '<m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr><m:sub>{n}</m:sub><m:sup/><m:e>{x}</m:e></m:nary>',
            r"\sum_{n}x",
        ),
        ("<m:nary><m:sub/><m:sup/><m:e>{x}</m:e></m:nary>", r"\int x"),
        ("<m:d><m:e>{x}</m:e><m:e>{n}</m:e></m:d>", r"\left(x|n\right)"),
        (
            '<m:d><m:dPr><m:begChr m:val="{{"/><m:endChr m:val=""/></m:dPr><m:e>{x}</m:e></m:d>',
            r"\left\{x\right.",
        ),
        ("<m:func><m:fName><m:r><m:t>sin</m:t></m:r></m:fName><m:e>{x}</m:e></m:func>", r"\sin x"),
        ("<m:m><m:mr><m:e>{x}</m:e><m:e>{n}</m:e></m:mr></m:m>", r"\begin{matrix}x & n\end{matrix}"),
        ("<m:acc><m:e>{x}</m:e></m:acc>", r"\hat{x}"),
        ("<m:box><m:e>{x}</m:e></m:box>", "x"),
    ],
)
def test_equations_become_latex(omml: str, latex: str) -> None:
    """Each structure of an equation has its LaTeX; unknown ones are their contents."""
    parts = {name: f"<m:r><m:t>{name}</m:t></m:r>" for name in ("x", "n")}
    found = extract(with_xml(f"<w:r><w:t>So: </w:t></w:r><m:oMath>{omml.format(**parts)}</m:oMath>"))
    assert found.text == f"So: ${latex}$"


def test_notes_follow_their_paragraph() -> None:
    """A footnote stands below the paragraph that refers to it, once, even if it refers to itself."""
    note = '<w:footnote w:id="2"><w:p><w:r><w:t>A note.</w:t><w:footnoteReference w:id="2"/></w:r></w:p></w:footnote>'
    relation = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"
    plain = with_xml('<w:r><w:t>Text</w:t><w:footnoteReference w:id="2"/></w:r>', "<w:r><w:t>More</w:t></w:r>")
    link = f'<Relationship Id="rId99" Type="{relation}" Target="footnotes.xml"/></Relationships>'

    def linked(name: str, part: bytes) -> bytes:
        return part.replace(b"</Relationships>", link.encode()) if name == "word/_rels/document.xml.rels" else part

    file = BytesIO(changed(plain, linked))
    with zipfile.ZipFile(file, "a") as package:
        package.writestr("word/footnotes.xml", f"<w:footnotes {NAMESPACES}>{note}</w:footnotes>")
    assert extract(file.getvalue()).text == "Text\n\nA note.\n\nMore"


def test_templates_strict_documents_and_dangling_references_are_read() -> None:
    """What python-docx refuses is first brought into the form that it takes."""
    data = with_xml("<w:r><w:t>Words</w:t></w:r>")

    def strict(_: str, part: bytes) -> bytes:
        for noun in (b"officeDocument", b"wordprocessingml", b"drawingml"):
            common = b"http://schemas.openxmlformats.org/%s/2006/" % noun
            part = part.replace(common, b"http://purl.oclc.org/ooxml/%s/" % noun)
        return part

    def template(_: str, part: bytes) -> bytes:
        return part.replace(b"wordprocessingml.document.main", b"wordprocessingml.template.main")

    def dangling(name: str, part: bytes) -> bytes:
        link = b'<Relationship Id="rId98" Type="x/image" Target="../NULL"/></Relationships>'
        return part.replace(b"</Relationships>", link) if name.startswith("word/_rels") else part

    for change in (strict, template, dangling):
        assert extract(changed(data, change)).text == "Words"


def test_entities_are_not_resolved() -> None:
    """An entity stays a name: neither files nor other entities come in."""
    data = with_xml("<w:r><w:t>MARK</w:t></w:r>")
    doctype = b'<!DOCTYPE d [<!ENTITY f SYSTEM "file:///etc/passwd"><!ENTITY a "lol"><!ENTITY b "&a;&a;&a;">]>'

    def hostile(name: str, part: bytes) -> bytes:
        if name != "word/document.xml":
            return part
        head, _, body = part.partition(b"?>")
        return head + b"?>" + doctype + body.replace(b"MARK", b"[&f;][&b;]")

    assert "root:" not in extract(changed(data, hostile)).text
    assert "lollol" not in extract(changed(data, hostile)).text


def test_broken_documents_are_refused() -> None:
    """A package cut short, or with XML cut short, is UNREADABLE_DOCUMENT."""
    data = with_xml("<w:r><w:t>Words</w:t></w:r>")
    for broken in (data[: len(data) // 2], changed(data, lambda name, part: part[: len(part) // 2])):
        with pytest.raises(MeshError) as failed:
            extract(broken, "x.docx")
        assert failed.value.reason == "UNREADABLE_DOCUMENT"


def test_an_encrypted_document_needs_its_password() -> None:
    """Without the password, or with a wrong one, the reason is PASSWORD_REQUIRED; with it the text is read."""
    sealed = BytesIO()
    OOXMLFile(BytesIO(with_xml("<w:r><w:t>Secret</w:t></w:r>"))).encrypt("sesame", sealed)
    assert extract(sealed.getvalue(), "x.docx", "sesame").text == "Secret"
    for password in ("", "wrong"):
        with pytest.raises(MeshError) as failed:
            extract(sealed.getvalue(), "x.docx", password)
        assert failed.value.reason == "PASSWORD_REQUIRED"
