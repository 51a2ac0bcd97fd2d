"""HTML: the main content as text under its headings."""

import re
from importlib.metadata import version

from selectolax.lexbor import LexborHTMLParser, LexborNode

from ingest_svc.extract import BlockKind, Extract, Source, Writer
from ingest_svc.parsing.detection import HTML
from ingest_svc.parsing.plain_text import decode

_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_HEAD_BYTES = 4096
_NO_TEXT = ["script", "style", "noscript", "template", "svg", "iframe", "object", "select", "button", "math"]
_AROUND = "nav, body > header, body > footer, aside, [role=navigation], [role=banner], [role=contentinfo], [hidden]"
_MAIN = ("main", "[role=main]", "article")
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = {
    *_HEADINGS,
    *("address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "div", "dl", "dt"),
    *("fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "html", "legend", "li", "main"),
    *("nav", "ol", "p", "pre", "section", "summary", "table", "tbody", "td", "th", "tr", "ul"),
}
_SPACES = re.compile(r"[ \t\r\n\f]+")


def parse(source: Source) -> Extract:
    """The main content: what `main` or the only `article` holds, else the body without navigation."""
    declared = _CHARSET.search(source.data[:_HEAD_BYTES])
    text, charset, guessed = decode(source.data, declared[1].decode() if declared else "")
    tree = LexborHTMLParser(text)
    title = tree.css_first("title")
    heading = tree.css_first("h1")
    named = (node.text(strip=True) for node in (title, heading) if node is not None)
    first = next((name for name in named if name), "")
    writer = Writer()
    _write(_content(tree), writer)
    warnings = [f"charset guessed: {charset}"] if guessed else []
    return writer.extract(HTML, f"selectolax {version('selectolax')}", title=first, warnings=warnings)


def _content(tree: LexborHTMLParser) -> LexborNode | None:
    tree.strip_tags(_NO_TEXT, recursive=True)
    body = tree.body
    for selector in _MAIN:
        found = tree.css(selector)
        if len(found) == 1 and len(found[0].text(strip=True)) > 0:
            body = found[0]
            break
    for node in body.css(_AROUND) if body is not None else ():
        node.decompose()
    return body


def _write(content: LexborNode | None, writer: Writer) -> None:
    """Write the text nodes in document order, those of one block element together.

    The tree is walked without recursion: pages nest deeper than Python's stack.
    """
    run: list[str] = []
    owner: LexborNode | None = None
    for node in content.traverse(include_text=True) if content is not None else ():
        if node.tag == "br":
            run.append("\n")
        if node.tag != "-text":
            continue
        block = _block(node)
        if owner is None or block.mem_id != owner.mem_id:
            _flush(run, owner, writer)
            run, owner = [], block
        run.append(_text(node, block))
    _flush(run, owner, writer)


def _text(node: LexborNode, block: LexborNode) -> str:
    text = node.text(deep=False) or ""
    return text if block.tag == "pre" else _SPACES.sub(" ", text)


def _block(node: LexborNode) -> LexborNode:
    """The element that sets the text apart; a whole table counts as one where the text is in a cell."""
    element = node.parent or node
    while element.parent is not None and (element.tag not in _BLOCKS):
        element = element.parent
    row = element
    while row.parent is not None and row.tag not in ("tr", "body", *_HEADINGS):
        row = row.parent
    return row if row.tag == "tr" and element.tag in ("td", "th", "p", "div") else element


def _flush(run: list[str], owner: LexborNode | None, writer: Writer) -> None:
    if owner is None:
        return
    tag = owner.tag or ""
    text = "".join(run)
    if tag in _HEADINGS:
        writer.heading(_HEADINGS[tag], text)
    elif tag == "tr":
        writer.block(_cells(run), BlockKind.TABLE)
    elif tag == "pre":
        writer.block(text, BlockKind.CODE)
    else:
        lines = "\n".join(line.strip() for line in text.split("\n")).strip()
        item = tag in ("li", "dd")
        writer.block(f"- {lines}" if item and lines else lines, BlockKind.ITEM if item else BlockKind.PARAGRAPH)


def _cells(run: list[str]) -> str:
    return " | ".join(words for words in (" ".join(part.split()) for part in run) if words)
