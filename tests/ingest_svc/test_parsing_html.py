"""HTML made here."""

from ingest_svc.extract import BlockKind
from tests.ingest_svc.parsed import blocks, extract


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
        (BlockKind.TABLE, "| a | b |\n| --- | --- |"),
    ]
    assert found.title == "Home"
    deep = extract("<html>" + "<div>" * 5000 + "deep")
    assert deep.text == "deep"
