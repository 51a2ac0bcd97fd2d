"""HTML: the main content as blocks under its headings."""

import re
from importlib.metadata import version

from selectolax.lexbor import LexborHTMLParser, LexborNode

from ingest_svc.extract import BlockKind, Extract, Source, Writer
from ingest_svc.parsing import html_tables
from ingest_svc.parsing.detection import HTML
from ingest_svc.parsing.plain_text import decode

_READER = f"selectolax {version('selectolax')}"
_CHARSET = re.compile(rb"<(?:meta|\?xml)[^>]+(?:charset|encoding)\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_HEAD_BYTES = 4096
_NO_TEXT = ["script", "style", "noscript", "template", "svg", "iframe", "object", "select", "button", "math", "dialog"]
_MAIN = ("main", "[role=main]", "article", "#content", "#main-content")
# A page whose main element has less of its text than this share has put the rest beside it.
_MAIN_SHARE = 0.3
_AROUND = (
    "nav, body > header, body > footer, aside, form[role=search], [role=navigation], [role=banner], [role=search],"
    "[role=contentinfo], [role=dialog], [role=alertdialog], [role=menu], [hidden], [aria-hidden=true],"
    ".headerlink, .anchorjs-link, .mw-editsection, .mw-jump-link, .sr-only, .visually-hidden,"
    "a[class^=skip], li a[hreflang]"
)
# Names of what stands around content where a page has no elements for it.
_NAMED_AROUND = re.compile(
    r"(?:^|[\s_-])(?:nav|navbar|navigation|menu|breadcrumbs?|cookies?|consent|gdpr|sidebar|site-?footer|footer|site-?header|"
    r"newsletter|social|share|sharing|advert\w*|ads?|banner|popup|modal|skip-?link|toolbar|pagination|related-?posts)"
    r"(?:$|\s)",
    re.IGNORECASE,
)
# What has more of the text is the content, whatever its name.
_MAX_AROUND_SHARE = 0.4
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = {
    *("address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "div", "dl", "dt"),
    *("fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "html", "legend", "li", "main", "menu"),
    *("nav", "ol", "p", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul"),
}
_LISTS = {"ul", "ol", "menu", "dl"}
_ITEMS = {"li", "dt"}
_SPACES = re.compile(r"[ \t\r\n\f]+")


def parse(source: Source) -> Extract:
    """The main content: what `main` or the only `article` holds, else the body without what stands around it."""
    declared = _CHARSET.search(source.data[:_HEAD_BYTES])
    text, charset, guessed = decode(source.data, declared[1].decode() if declared else "")
    tree = LexborHTMLParser(text)
    title, metadata = _title(tree), _metadata(tree)
    writer = Writer()
    write(_content(tree), writer)
    warnings = [f"charset guessed: {charset}"] if guessed else []
    return writer.extract(HTML, _READER, title=title, metadata=metadata, warnings=warnings)


def _title(tree: LexborHTMLParser) -> str:
    named = (tree.css_first(selector) for selector in ("title", "h1"))
    return next((words for node in named if node is not None and (words := node.text(strip=True))), "")


def _metadata(tree: LexborHTMLParser) -> dict[str, str]:
    """What the page says of itself, as far as it does."""
    root, found = tree.css_first("html"), {}
    language = root.attributes.get("lang") if root is not None else None
    if language:
        found["language"] = language
    for name in ("description", "author", "keywords"):
        node = tree.css_first(f"meta[name={name} i]")
        content = node.attributes.get("content") if node is not None else None
        if content and content.strip():
            found[name] = " ".join(content.split())
    return found


def _content(tree: LexborHTMLParser) -> LexborNode | None:
    tree.strip_tags(_NO_TEXT, recursive=True)
    body = tree.body
    if body is None:
        return None
    whole = len(body.text())
    for selector in _MAIN:
        found = tree.css(selector)
        if len(found) == 1 and len(found[0].text()) > _MAIN_SHARE * whole:
            body = found[0]
            break
    _prune(body)
    return body


def _prune(body: LexborNode) -> None:
    """Take out of the content what is none, but never most of it."""
    for node in body.css(_AROUND):
        node.decompose()
    limit = _MAX_AROUND_SHARE * len(body.text())
    for node in body.css("div[class], div[id], ul[class], ul[id], section[class], header[class], footer, p[class]"):
        names = f"{node.attributes.get('class') or ''} {node.attributes.get('id') or ''}"
        if _NAMED_AROUND.search(names) and len(node.text()) < limit:
            node.decompose()


def write(content: LexborNode | None, writer: Writer) -> None:
    """Write the content's blocks in document order, without recursion: pages nest deeper than Python's stack."""
    if content is None:
        return
    walk = _Walk(writer)
    node = content.child
    while node is not None:
        child = node.child if walk.enter(node) else None
        if child is not None:
            node = child
            continue
        walk.leave(node)
        while node.next is None:
            parent = node.parent
            if parent is None or parent.mem_id == content.mem_id:
                walk.flush()
                return
            node = parent
            walk.leave(node)
        node = node.next


class _Walk:
    """Gathers a content's text into blocks; is told of each node when it begins and when it ends."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._run: list[str] = []
        # The number of the next item of each list around the place, 0 where items have none.
        self._lists: list[int] = []
        self._mark = ""

    def enter(self, node: LexborNode) -> bool:
        """Take in the node; whether its children are to come."""
        tag = node.tag or ""
        if tag == "-text":
            self._run.append(_SPACES.sub(" ", node.text(deep=False) or ""))
            return False
        if tag == "br":
            self._run.append("\n")
            return False
        if tag not in _BLOCKS and tag not in _HEADINGS and tag != "pre":
            return True
        self.flush()
        if tag in _HEADINGS:
            self._writer.heading(_HEADINGS[tag], node.text())
        elif tag == "pre":
            self._writer.block(node.text(), BlockKind.CODE)
        elif tag == "table" and html_tables.is_data(node):
            caption = node.css_first("caption")
            self._writer.block(" ".join(caption.text().split()) if caption is not None else "")
            self._writer.table(html_tables.rows(node))
        else:
            self._begin(tag, node)
            return True
        return False

    def _begin(self, tag: str, node: LexborNode) -> None:
        if tag in _LISTS:
            start = node.attributes.get("start") or ""
            self._lists.append((int(start) if start.isdigit() else 1) if tag == "ol" else 0)
        elif tag in _ITEMS:
            number = self._lists[-1] if self._lists else 0
            self._mark = f"{number}. " if number else "- "
            if number:
                self._lists[-1] += 1

    def leave(self, node: LexborNode) -> None:
        """The node's children have come."""
        tag = node.tag or ""
        if tag in _BLOCKS:
            self.flush()
            if tag in _LISTS and self._lists:
                self._lists.pop()
            elif tag in _ITEMS:
                # Of an item without words.
                self._mark = ""

    def flush(self) -> None:
        """Write the text since the last block."""
        lines = [" ".join(line.split()) for line in "".join(self._run).split("\n")]
        self._run.clear()
        text = "\n".join(lines).strip()
        if not text:
            return
        if not self._lists and not self._mark:
            self._writer.block(text)
            return
        indent = "  " * max(len(self._lists) - 1, 0)
        # What follows in an item stands below its first words.
        begin = self._mark or "  "
        self._mark = ""
        self._writer.block(indent + begin + text.replace("\n", f"\n{indent}  "), BlockKind.ITEM)
