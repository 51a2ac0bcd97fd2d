"""Markdown and plain text in any charset."""

from pathlib import Path

import pytest

from ingest_svc.extract import BlockKind
from meshkit.errors import MeshError
from tests.ingest_svc.parsed import blocks, extract

SHARED = Path(__file__).parents[3] / "shared" / "data"


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
        (BlockKind.TABLE, "| a | b |\n| --- | --- |\n| c | d |"),
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
