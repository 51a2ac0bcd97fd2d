"""Tables of HTML: which hold data, and their rows."""

from collections.abc import Iterator

from selectolax.lexbor import LexborNode

# What data is not: a table around these is there for the page's layout.
_LAYOUT = "h1, h2, h3, h4, form, pre, article, section"
# A table in a cell is data where it has no more text than this.
_MAX_INNER_CHARS = 500
_PARTS = {"thead", "tbody", "tfoot"}
_MAX_SPAN = 100


def is_data(table: LexborNode) -> bool:
    """Whether the table has rows of data, or is there for the layout of a page."""
    if table.attributes.get("role") in ("presentation", "none") or table.css_first(_LAYOUT) is not None:
        return False
    # A node matches a selector among its own descendants too.
    inner = (node for node in table.css("table") if node.mem_id != table.mem_id)
    return all(len(node.text()) <= _MAX_INNER_CHARS for node in inner)


def _rows(table: LexborNode) -> Iterator[LexborNode]:
    """The table's own rows, not those of a table inside."""
    for part in table.iter():
        if part.tag == "tr":
            yield part
        elif part.tag in _PARTS:
            yield from (row for row in part.iter() if row.tag == "tr")


def rows(table: LexborNode) -> Iterator[list[str]]:
    """The cells' text row by row; one that spans several rows or columns has it in its first place."""
    pending: dict[int, int] = {}
    for row in _rows(table):
        cells: list[str] = []
        for cell in row.iter():
            if cell.tag not in ("td", "th"):
                continue
            while pending.get(len(cells)):
                pending[len(cells)] -= 1
                cells.append("")
            width, height = _span(cell, "colspan"), _span(cell, "rowspan")
            for place in range(len(cells), len(cells) + width):
                pending[place] = height - 1
            cells += [_text(cell), *[""] * (width - 1)]
        yield cells


def _span(cell: LexborNode, name: str) -> int:
    span = cell.attributes.get(name) or ""
    return min(max(int(span), 1), _MAX_SPAN) if span.isdecimal() else 1


def _text(cell: LexborNode) -> str:
    """The words in the cell; what its blocks and line breaks part stays apart."""
    return " ".join(cell.text(separator=" ").split()) if _has_blocks(cell) else " ".join(cell.text().split())


def _has_blocks(cell: LexborNode) -> bool:
    return cell.css_first("p, br, li, div, dd, td") is not None
