"""Pages of HTML and Markdown: what is content, and what shape it has."""

import pytest

from ingest_svc.extract import BlockKind, Extract, Source
from ingest_svc.parsing.reading import read

PROSE = "The duck swims on the pond and eats the bread that children throw to it from the shore. " * 3


def extract(page: str | bytes, uri: str = "page.html") -> Extract:
    """The extract of a page."""
    return read(Source(page.encode() if isinstance(page, str) else page, uri), 1_000_000)


def blocks(found: Extract) -> list[tuple[str, str]]:
    """The kind and the text of each block."""
    text = found.text.encode()
    return [(block.kind, text[block.start : block.end].decode()) for block in found.blocks]


AROUND = (
    '<div class="site-nav"><a href="/">Start</a></div><div id="cookie-banner">We use cookies</div>',
    '<div role="dialog">Subscribe</div><ul class="breadcrumbs"><li>Start</ul>',
    '<div class="page sidebar"><p>Others read</div><div class="hidden-xs share">Tweet</div>',
    "<nav>Menu</nav><header>Logo</header><footer>Imprint</footer><aside>Ad</aside><dialog>Login</dialog>",
    '<ul><li><a hreflang="de" href="/de">Deutsch</a></ul><a class="skip-link">Skip</a>',
)


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("page", ["<main>{}</main>", "<div id=content>{}</div>", "<div class=page>{}</div>"])
def test_only_the_content_is_kept(around: str, page: str) -> None:
    """Navigation, banners, dialogs and what stands beside go, whether the page marks its content or not."""
    found = extract(f"<!doctype html><body>{around}{page.format(f'<h1>Duck</h1><p>{PROSE}')}{around}")
    assert found.text == f"Duck\n\n{PROSE.strip()}"


def test_content_with_a_strange_name_is_kept() -> None:
    """What has most of the page's text stays, whatever it is called; so do notes whose names only begin like a menu."""
    found = extract(
        f'<html><div class="menu">{PROSE}</div><div class="navigation-not-searchable">See pond</div>'
        f"<ul><li><a hreflang=de>Deutsch</a></ul><article>short</article>"
    )
    assert found.text == f"{PROSE.strip()}\n\nSee pond\n\nshort"


def test_lists_keep_numbers_and_depth() -> None:
    """Items have their marks, inner lists are indented, what follows in an item stands below its words."""
    found = extract(
        "<html><ol start=3><li>three<p>and on</p><ul><li>inner</ul><li>four</ol>after"
        "<dl><dt>Duck<dd>a bird</dl><pre>x = 1\n  y</pre><p>a <a href='/b'>link</a>"
    )
    assert blocks(found) == [
        (BlockKind.ITEM, "3. three"),
        (BlockKind.ITEM, "  and on"),
        (BlockKind.ITEM, "  - inner"),
        (BlockKind.ITEM, "4. four"),
        (BlockKind.PARAGRAPH, "after"),
        (BlockKind.ITEM, "- Duck"),
        (BlockKind.ITEM, "  a bird"),
        (BlockKind.CODE, "x = 1\n  y"),
        (BlockKind.PARAGRAPH, "a link"),
    ]


def test_tables_of_data_are_tables_and_others_are_not() -> None:
    """Spans leave empty cells; a table in a small one is its words; a table around headings is a page's layout."""
    found = extract(
        "<html><table><caption>Ponds</caption><thead><tr><th colspan=2>a<th>b</thead>"
        "<tr><td rowspan=2>c<td>d<td><table><tr><td>e<td>f</table><tr><td>g<td>h</table>"
        "<table><tr><td><h2>Left</h2>words<td>right</table>"
    )
    assert blocks(found) == [
        (BlockKind.PARAGRAPH, "Ponds"),
        (BlockKind.TABLE, "| a |  | b |\n| --- | --- | --- |\n| c | d | e f |\n|  | g | h |"),
        (BlockKind.HEADING, "Left"),
        (BlockKind.PARAGRAPH, "words"),
        (BlockKind.PARAGRAPH, "right"),
    ]


@pytest.mark.parametrize(
    ("page", "charset"),
    [
        ('<html><meta charset="{}"><p>Grüße', "cp1252"),
        ('<?xml version="1.0" encoding="{}"?><html><p>Grüße', "iso-8859-15"),
        ('<html><meta http-equiv="Content-Type" content="text/html; charset={}"><p>Grüße', "utf-16"),
        ("<html><p>Grüße und noch mehr Wörter, die keine Größe haben{}", "utf-16-le"),
        ('<html><meta charset="{}"><p>Grüße 鸭子在池塘里', "gb18030"),
    ],
)
def test_pages_say_how_they_are_encoded(page: str, charset: str) -> None:
    """A declared charset is taken, a byte-order mark and UTF-16 without one are seen."""
    declared = page.format(charset if charset != "utf-16-le" else "")
    assert "Grüße" in extract(declared.encode(charset)).text


def test_pages_tell_of_themselves() -> None:
    """Title, description, author and language come from the head."""
    found = extract(
        "<html lang=de><title> The\nDuck </title><meta name=Description content='All  of it'>"
        "<meta name=author content=Daisy><h1>Other</h1>"
    )
    assert (found.title, found.metadata) == (
        "The Duck",
        {"language": "de", "description": "All of it", "author": "Daisy"},
    )


def test_markdown_with_html_and_components_is_read() -> None:
    """HTML's tables and lists are what they are in a page; MDX's imports go, its components leave their words."""
    found = extract(
        'import A from "./a"\nexport const b = 1\n\n# Duck\n\n<table><tr><th>a<th>b</tr><tr><td>1<td>2</tr></table>\n\n'
        "<Tab title='One'>\n\nIn a <b>tab</b> ~~not~~.\n\n</Tab>\n\n- [x] done\n  1. inner\n\n     more\n",
        "page.mdx",
    )
    assert blocks(found) == [
        (BlockKind.HEADING, "Duck"),
        (BlockKind.TABLE, "| a | b |\n| --- | --- |\n| 1 | 2 |"),
        (BlockKind.PARAGRAPH, "In a tab not."),
        (BlockKind.ITEM, "- [x] done\n  1. inner\n    more"),
    ]
