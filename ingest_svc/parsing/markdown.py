"""Markdown (CommonMark with tables), as plain text under its headings; Hugo's additions are understood."""

import re
import textwrap
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode
from selectolax.lexbor import LexborHTMLParser

from ingest_svc.extract import BlockKind, Extract, Source, Writer
from ingest_svc.parsing import html, hugo
from ingest_svc.parsing.detection import MARKDOWN
from ingest_svc.parsing.plain_text import decode

_READER = f"markdown-it-py {version('markdown-it-py')}"
_ANCHOR = re.compile(r"\s*\{#[^}]*\}\s*$")
_ADMONITION = re.compile(r"^\[!(\w+)\]\s*")
# What MDX takes from JavaScript, at the top of a page.
_MODULE_LINES = re.compile(r"\A(?:[ \t]*(?:(?:import|export)\b[^\n]*)?\n)+")
# A line that the source only wraps goes on after a space or, between Chinese or Japanese signs, after none.
_WRAP = "\v"
_BREAKS = {"softbreak": _WRAP, "hardbreak": "\n"}
_CJK = r"\u3000-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef"
_WRAP_IN_CJK = re.compile(rf"(?<=[{_CJK}]){_WRAP}(?=[{_CJK}])")


def parse(source: Source) -> Extract:
    """The page as text: headings, paragraphs, list items, tables and code; its front matter as metadata."""
    text, charset, guessed = decode(source.data)
    fields, body = hugo.front_matter(text.replace("\r\n", "\n").replace("\r", "\n"))
    if source.uri.lower().endswith(".mdx"):
        body = _MODULE_LINES.sub("", body)
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(hugo.without_shortcodes(body))
    writer = Writer()
    for node in SyntaxTreeNode(tokens).children:
        _write(node, writer)
    return writer.extract(
        MARKDOWN,
        _READER,
        title=str(fields.get("title") or _first_heading(tokens)),
        metadata=_plain(fields),
        warnings=[f"charset guessed: {charset}"] if guessed else [],
    )


def _write(node: SyntaxTreeNode, writer: Writer) -> None:
    if node.type == "heading":
        writer.heading(int(node.tag[1]), _ANCHOR.sub("", _inline(node)))
    elif node.type in ("bullet_list", "ordered_list"):
        for text in _items(node, 0):
            writer.block(text, BlockKind.ITEM)
    elif node.type == "blockquote":
        for child in node.children:
            _write(child, writer)
    elif node.type == "table":
        writer.table(_rows(node))
    elif node.type in ("fence", "code_block"):
        writer.block(node.content, BlockKind.CODE)
    elif node.type == "html_block":
        html.write(LexborHTMLParser(node.content).body, writer)
    elif node.type == "paragraph":
        writer.block(_ADMONITION.sub(r"\1: ", _inline(node)))


def _items(items: SyntaxTreeNode, depth: int) -> Iterator[str]:
    """The text of each item of a list; an item's inner lists are indented lines of the same text."""
    number = int(items.attrs.get("start", 1)) if items.type == "ordered_list" else 0
    for place, item in enumerate(items.children):
        mark = f"{number + place}." if number else "-"
        yield "  " * depth + f"{mark} " + "\n".join(_item_parts(item, depth)).lstrip()


def _item_parts(item: SyntaxTreeNode, depth: int) -> Iterator[str]:
    """The parts of an item as lines that are indented as deep as its words."""
    indent = "  " * (depth + 1)
    for child in item.children:
        if child.type in ("bullet_list", "ordered_list"):
            yield from _items(child, depth + 1)
        else:
            yield textwrap.indent(_item_part(child), indent)


def _item_part(node: SyntaxTreeNode) -> str:
    if node.type == "table":
        return "\n".join(" | ".join(row) for row in _rows(node))
    if node.type in ("fence", "code_block"):
        return node.content.rstrip("\n")
    if node.type == "html_block":
        return _html(node.content).strip()
    if node.type == "blockquote":
        return "\n".join(_item_part(child) for child in node.children)
    return _inline(node)


def _rows(table: SyntaxTreeNode) -> Iterator[list[str]]:
    for row in (row for part in table.children for row in part.children):
        yield [_inline(cell) for cell in row.children]


def _inline(node: SyntaxTreeNode) -> str:
    """The words of a block that holds inline content, without marks; of links and images their text."""
    text = "".join(_words(inner) for inner in node.walk(include_self=False))
    return _WRAP_IN_CJK.sub("", text).replace(_WRAP, " ").strip()


def _words(node: SyntaxTreeNode) -> str:
    if node.type in _BREAKS:
        return _BREAKS[node.type]
    if node.type == "html_inline":
        return "\n" if node.content.lower().startswith("<br") else ""
    return node.content if node.type in ("text", "code_inline", "fence", "code_block") else ""


def _html(source: str) -> str:
    body = LexborHTMLParser(source).body
    return body.text(separator=" ", strip=True) if body else ""


def _first_heading(tokens: list[Token]) -> str:
    for place, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h1":
            return _ANCHOR.sub("", _inline(SyntaxTreeNode(tokens[place : place + 3])))
    return ""


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields whose values JSON has: texts, numbers, booleans and lists of texts."""
    kept = {key: value for key, value in fields.items() if isinstance(value, str | int | float | bool)}
    lists = {key: value for key, value in fields.items() if isinstance(value, list)}
    return kept | {key: value for key, value in lists.items() if all(isinstance(item, str) for item in value)}
