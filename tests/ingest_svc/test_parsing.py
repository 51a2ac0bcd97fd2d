"""Parsers on small files made here, and on the shared fixtures where they are at hand."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import docx
import pytest
from fpdf import FPDF

from ingest_svc.extract import BlockKind, Extract, Source
from ingest_svc.parsing.reading import read
from meshkit.errors import MeshError

SHARED = Path(__file__).parents[3] / "shared" / "data"
LOADERS = SHARED / "loaders"


def extract(data: bytes | str, uri: str = "", password: str = "") -> Extract:
    """The extract, its blocks checked to be in order and to part no character."""
    source = Source(data.encode() if isinstance(data, str) else data, uri, password)
    found = read(source, 1_000_000)
    text, last = found.text.encode(), 0
    for block in found.blocks:
        assert last <= block.start < block.end
        assert text[block.start : block.end].decode().strip()
        last = block.end
    assert last == len(text)
    return found


def blocks(found: Extract) -> list[tuple[str, str]]:
    """The kind and the text of each block."""
    text = found.text.encode()
    return [(block.kind, text[block.start : block.end].decode()) for block in found.blocks]


def pdf(*pages: str, password: str = "") -> bytes:
    """A PDF with a text on each page."""
    document = FPDF()
    if password:
        document.set_encryption(owner_password="owner", user_password=password)
    document.set_font("Helvetica")
    document.set_title("Rules")
    for page in pages:
        document.add_page()
        document.multi_cell(0, text=page)
    return bytes(document.output())


def test_markdown_becomes_plain_text_under_headings() -> None:
    """Marks go, words stay; lists, tables and code are blocks; anchors and comments are left out."""
    found = extract(
        "# Pods {#pods}\n\nA **pod** has [a phase](x.md) and `code`.\n<!-- not\n\nthis -->\n"
        "1. one\n   - inner\n2. two\n\n| a | b |\n|---|---|\n| c | d |\n\n## Next\n\n```yaml\nkind: Pod\n```\n",
        "x.md",
    )
    assert blocks(found) == [
        (BlockKind.HEADING, "Pods"),
        (BlockKind.PARAGRAPH, "A pod has a phase and code."),
        (BlockKind.ITEM, "1. one\n  - inner"),
        (BlockKind.ITEM, "2. two"),
        (BlockKind.TABLE, "a | b\nc | d"),
        (BlockKind.HEADING, "Next"),
        (BlockKind.CODE, "kind: Pod"),
    ]
    assert found.blocks[-1].heading_path == ("Pods", "Next")
    assert found.title == "Pods"


def test_hugo_pages_lose_their_shortcodes() -> None:
    """Front matter becomes title and metadata; shortcodes become the words that they show, or nothing."""
    found = extract(
        "---\ntitle: About\nweight: 5\nreviewers: [a, b]\nnested: {x: 1}\n---\n"
        'The {{< glossary_tooltip text="kubelet" term_id="kubelet" >}} and '
        '{{< glossary_tooltip term_id="control-plane" >}}.\n\n{{< note >}}\nMind.\n{{< /note >}}\n'
        '{{< comment >}}hidden{{< /comment >}}\n## {{% heading "whatsnext" %}}\n\n'
        "{{< mermaid >}}graph{{< /mermaid >}}\n"
        '{{< feature-state for_k8s_version="v1.25" state="stable" >}}\n',
        "about.md",
    )
    assert found.text == ("The kubelet and control plane.\n\nMind.\n\nWhat's next\n\nFeature state: v1.25 (stable)")
    assert (found.title, found.metadata) == ("About", {"title": "About", "weight": 5, "reviewers": ["a", "b"]})


def test_html_gives_its_main_content() -> None:
    """Scripts, styles and navigation go; entities are read; cells stand in rows; nesting has no limit."""
    found = extract(
        "<!doctype html><title>Home</title><style>p{}</style><nav>Menu</nav><main><h1>Duck</h1>"
        "<p>A <b>duck</b> &amp; its<br>pond.</p><script>x()</script><ul><li>bread<li>water</ul>"
        "<table><tr><td>a<td>b</table></main><footer>Imprint</footer>"
    )
    assert blocks(found) == [
        (BlockKind.HEADING, "Duck"),
        (BlockKind.PARAGRAPH, "A duck & its\npond."),
        (BlockKind.ITEM, "- bread"),
        (BlockKind.ITEM, "- water"),
        (BlockKind.TABLE, "a | b"),
    ]
    assert found.title == "Home"
    deep = extract("<html>" + "<div>" * 5000 + "deep")
    assert deep.text == "deep"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Grüße aus Köln".encode(), "Grüße aus Köln"),
        ("Grüße aus Köln".encode("utf-16"), "Grüße aus Köln"),
        ("Grüße".encode("utf-8-sig"), "Grüße"),
        (("Es grüßen die Bäcker aus Köln, während die Mäuse über die Brücke hüpfen. " * 4).encode("cp1252"), None),
        ("一\r\n二\r三".encode(), "一\n二\n三"),
        ("汉字的文本需要足够长才能被识别出来。我们再写一些普通的句子。".encode("gb18030"), None),
    ],
)
def test_charsets_are_told(data: bytes, text: str | None) -> None:
    """Text in any usual charset is read; a guess is said so."""
    found = extract(data)
    if text is None:
        assert "Köln" in found.text or "汉字" in found.text
        assert found.warnings[0].startswith("charset guessed")
    else:
        assert (found.text, found.warnings) == (text, ())


def test_pdf_pages_are_numbered() -> None:
    """Each block has the page it is on; a page without text is told of."""
    found = extract(pdf("First page.", "", "Third page."))
    assert [block.page for block in found.blocks] == [1, 3]
    assert (found.page_count, found.title) == (3, "Rules")
    assert found.warnings == ("pages without text: 2",)


def test_an_encrypted_pdf_needs_its_password() -> None:
    """Without the password, or with a wrong one, the reason is PASSWORD_REQUIRED; with it the text is read."""
    data = pdf("Secret page.", password="sesame")
    assert "Secret page." in extract(data, password="sesame").text
    for password in ("", "wrong"):
        with pytest.raises(MeshError) as failed:
            extract(data, password=password)
        assert failed.value.reason == "PASSWORD_REQUIRED"


def test_docx_has_headings_lists_and_tables() -> None:
    """Headings make paths, list paragraphs items, and tables rows, a merged cell once."""
    document = docx.Document()
    document.core_properties.title = "Guide"
    document.add_heading("Intro", 1)
    document.add_paragraph("Welcome.")
    document.add_paragraph("first", style="List Bullet")
    table = document.add_table(2, 2)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"
    table.cell(1, 0).text, table.cell(1, 1).text = "a", "b"
    saved = BytesIO()
    document.save(saved)
    found = extract(saved.getvalue())
    assert blocks(found) == [
        (BlockKind.HEADING, "Intro"),
        (BlockKind.PARAGRAPH, "Welcome."),
        (BlockKind.ITEM, "- first"),
        (BlockKind.TABLE, "| wide | wide |\n| --- | --- |\n| a | b |"),
    ]
    assert (found.title, found.blocks[1].heading_path) == ("Guide", ("Intro",))


OUTCOMES: dict[str, set[str]] = {
    "text": {"text", "UNSUPPORTED_FORMAT"},
    "no_text_layer": {"NO_TEXT", "text"},  # text where tesseract is installed
    "needs_password": {"PASSWORD_REQUIRED"},
}


def fixtures() -> list[Any]:
    """The shared loader files that may be opened without limits of memory and time."""
    manifest = LOADERS / "manifest.jsonl"
    lines = manifest.read_text().splitlines() if manifest.is_file() else []
    return [entry for entry in map(json.loads, lines) if not entry["category"].startswith("malicious")]


def test_shared_fixtures_come_out_as_wanted() -> None:
    """Each shared file gives the outcome that its manifest asks for, and never an unforeseen error."""
    for entry in fixtures():
        data = (LOADERS / entry["file"]).read_bytes()
        try:
            extract(data, entry["file"])
            outcome = "text"
        except MeshError as error:
            outcome = error.reason
        wanted = OUTCOMES.get(entry["outcome"])
        assert wanted is None or outcome in wanted, entry["file"]
        if entry["outcome"] == "needs_password" and entry.get("password") and entry["file"].endswith(".pdf"):
            assert extract(data, entry["file"], entry["password"]).text


def test_shared_pages_lose_all_markup() -> None:
    """No page of the shared documentation keeps a shortcode, a comment or an anchor."""
    for page in sorted((SHARED / "k8s-docs" / "pages").rglob("*.md"))[::8]:
        try:
            text = extract(page.read_bytes(), str(page)).text
        except MeshError as error:
            if error.reason == "NO_TEXT":
                continue
            raise
        assert not [mark for mark in ("{{<", "{{%", "<!--", "{#") if mark in text], page
