"""Source code: the text as it is, in blocks of a definition each, under the names of what is around them."""

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import pairwise

from tree_sitter import Node
from tree_sitter_language_pack import get_parser

from ingest_svc.extract import Block, BlockKind, Extract, Source
from ingest_svc.parsing.languages import Language, language_of
from ingest_svc.parsing.plain_text import decode
from meshkit.errors import InvalidArgument

_READER = f"tree-sitter-language-pack {version('tree-sitter-language-pack')}"
# What defines a name and may hold definitions, by the node's type in any grammar.
_CONTAINERS = re.compile(
    r"^(?:\w+_)?(?:class|interface|namespace|module|impl|trait|struct|object|protocol|record|union|service|mixin)"
    r"(?:_(?:definition|declaration|specifier|item|statement))?$|^(?:extension|enum)_declaration$|^mod_item$"
)
_MEMBERS = re.compile(
    r"^(?:\w+_)?(?:function|method|constructor|macro|subroutine|type|type_alias|enum|annotation_type|const_type)"
    r"_(?:definition|declaration|item|statement|specifier)$|^(?:method|singleton_method|function|rpc|message|enum|rule_set)$"
)
_BLOCKS = frozenset(("block", "rule_set"))
# Nothing of their own, but definitions inside.
_WRAPPERS = frozenset(("decorated_definition", "export_statement", "template_declaration", "type_system_definition"))
_TRANSPARENT = re.compile(
    r"^preproc_(?:if|ifdef|else|elif)$|^linkage_specification$|(?:^|_)(?:declaration_list|body|list)$"
)
_ABOVE = re.compile(r"comment|attribute_item|attribute_list")
_ASSIGNMENTS = frozenset(("lexical_declaration", "variable_declaration", "expression_statement", "binary_operator"))
_FUNCTION_VALUES = frozenset(("arrow_function", "function_expression", "generator_function", "function_definition"))
_NAMES = ("name", "declarator", "type")
# A comment so many rows above belongs to what is below.
_ABOVE_ROWS = 2
# What ends the definition before: brackets, or a word for them.
_CLOSING = re.compile(rb"(?:[^\w\x80-\xff]|\bend\b)*")
_MAX_DEPTH = 12
_MAX_NAME_CHARS = 120
_HEAD_CHARS = 4096

Section = tuple[int, tuple[str, ...]]
"""Where a block begins, in bytes, and the names of what it is in, its own last."""


def parse(source: Source) -> Extract:
    """The text byte for byte, in blocks that leave out blank text only; a warning where the charset was guessed."""
    text, charset, guessed = decode(source.data)
    language = language_of(text[:_HEAD_CHARS], source.uri.lower().partition("?")[0])
    data = text.encode()
    if language is None:
        raise InvalidArgument("UNSUPPORTED_FORMAT", "the text is of no language that is known")
    by_lines = bool(language.sections)
    sections = list(_lines(data, language) if by_lines else _tree(data, language))
    return Extract(
        text=text,
        blocks=tuple(_blocks(data, sections)),
        media_type=language.media_type,
        parser="ragmesh" if by_lines else _READER,
        warnings=(f"charset guessed: {charset}",) if guessed else (),
    )


def _blocks(data: bytes, sections: Sequence[Section]) -> Iterator[Block]:
    """A block for each section; what has no word in it, such as a last bracket, goes with the block before."""
    kept: list[Section] = []
    for (start, path), (end, _) in pairwise([*sections, (len(data), ())]):
        if start < end and not (kept and _CLOSING.fullmatch(data, start, end)):
            kept.append((start, path))
    for (start, path), (end, _) in pairwise([*kept, (len(data), ())]):
        if data[start:end].strip():
            yield Block(start=start, end=end, kind=BlockKind.CODE, heading_path=path)


def _lines(data: bytes, language: Language) -> Iterator[Section]:
    """A section from each line that begins one, with the comments right above it."""
    prefix = _resource(data, 0) if language.name == "yaml" else ()
    yield 0, prefix
    for found in re.finditer(rf"(?P<part>^---.*$)|{language.sections}".encode(), data, re.MULTILINE | re.IGNORECASE):
        if found["part"] is not None:
            prefix = _resource(data, found.end()) if language.name == "yaml" else ()
            yield found.start(), prefix
        elif not prefix:
            name = b" ".join(found["name"].split()).decode("utf-8", "replace").strip("\"'` ")
            yield _with_comments(data, found.start()), (name[:_MAX_NAME_CHARS],)


def _resource(data: bytes, start: int) -> tuple[str, ...]:
    """What a Kubernetes resource is called: its kind and name."""
    end = data.find(b"\n---", start)
    part = data[start : end if end >= 0 else len(data)]
    kind = re.search(rb"^kind:[ \t]*(\S+)", part, re.MULTILINE)
    name = re.search(rb"^metadata:[ \t]*\n(?:[ \t].*\n)*?[ \t]+name:[ \t]*(\S+)", part, re.MULTILINE)
    return (b" ".join(found[1] for found in (kind, name) if found).decode("utf-8", "replace"),) if kind else ()


def _with_comments(data: bytes, start: int) -> int:
    """The beginning of the comments that stand right above."""
    while start > 0:
        line = data.rfind(b"\n", 0, start - 1) + 1
        if not data[line:start].lstrip().startswith((b"#", b"--", b";")):
            break
        start = line
    return start


def _tree(data: bytes, language: Language) -> Iterator[Section]:
    yield 0, ()
    parser = get_parser(language.name)  # type: ignore[arg-type] # a test shows that each name is one of theirs
    yield from _definitions(data, parser.parse(data).root_node, (), 0)


def _definitions(data: bytes, node: Node, path: tuple[str, ...], depth: int) -> Iterator[Section]:
    """The sections of a node's definitions, and of what stands between them."""
    above: Node | None = None
    first = -1
    for child in node.named_children:
        if above is None or child.start_point[0] - above.end_point[0] > _ABOVE_ROWS:
            first = child.start_byte
        above = child if _ABOVE.search(child.type) else None
        defined = None if above else _defined(child)
        if defined is not None:
            inner = (*path, *_names(defined))
            yield _line_start(data, first), inner
            if depth < _MAX_DEPTH and _CONTAINERS.search(defined.type):
                yield from _definitions(data, _body(defined), inner, depth + 1)
            yield _line_end(data, child), path
        elif depth < _MAX_DEPTH and _TRANSPARENT.search(child.type):
            yield from _definitions(data, child, path, depth + 1)


def _line_start(data: bytes, start: int) -> int:
    """Where the line begins, if there are but blanks before."""
    line = data.rfind(b"\n", 0, start) + 1
    return start if data[line:start].strip() else line


def _line_end(data: bytes, node: Node) -> int:
    """Where the node's last line ends, if no other node begins in it."""
    after, end = node.next_named_sibling, data.find(b"\n", node.end_byte)
    shared = after is not None and after.start_byte < end and not _ABOVE.search(after.type)
    return node.end_byte if shared or end < 0 else end + 1


def _defined(node: Node) -> Node | None:
    """The definition that the node is, or that it wraps or assigns."""
    if node.type in _WRAPPERS:
        return next((found for child in node.named_children if (found := _defined(child)) is not None), None)
    if node.type in _ASSIGNMENTS:
        return node if _assigned(node) is not None else None
    is_definition = _CONTAINERS.search(node.type) or _MEMBERS.search(node.type) or node.type in _BLOCKS
    return node if is_definition else None


def _assigned(node: Node) -> Node | None:
    """What names the function that is assigned: itself, or what it is assigned to; None where none is."""
    for part in (node, *node.named_children):
        for target, field in (("name", "value"), ("left", "right"), ("lhs", "rhs")):
            value = part.child_by_field_name(field)
            if value is not None and value.type in _FUNCTION_VALUES:
                own = value.child_by_field_name("name") if value.type == "function_expression" else None
                return own or part.child_by_field_name(target) or part
    return None


def _body(node: Node) -> Node:
    body = node.child_by_field_name("body")
    return body or next((child for child in node.named_children if _TRANSPARENT.search(child.type)), node)


def _names(node: Node) -> tuple[str, ...]:
    """The name that the definition gives; before that of a method in Go the type that it is of."""
    receiver = node.child_by_field_name("receiver")
    owner = re.findall(rb"\w+", receiver.text or b"")[-1:] if receiver is not None else []
    named = _named(node)
    name = named.text if named is not None else re.split(rb"[{\n]", node.text or b"")[0]
    return tuple(
        " ".join(part.decode("utf-8", "replace").split())[:_MAX_NAME_CHARS] for part in (*owner, name or b"") if part
    )


def _named(node: Node) -> Node | None:
    """The node of the name itself, as far as the grammar says which it is."""
    if node.type in _BLOCKS:
        return None
    if node.type in _ASSIGNMENTS:
        return _assigned(node)
    for child in (node, *node.named_children):
        found = next((part for field in _NAMES if (part := child.child_by_field_name(field)) is not None), None)
        if found is not None:
            deeper = _named(found) if "declarator" in found.type else None
            return deeper or found
    return next((child for child in node.named_children if child.type.endswith(("name", "identifier"))), None)
