"""What a parser makes of a document: one text, and the blocks in it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\xad\ufeff\ufdd0-\ufdef\ufffe\uffff]")
_BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")


@dataclass(frozen=True, slots=True)
class Source:
    """A document's bytes, where they came from, the password that opens them or "", and tesseract's languages."""

    data: bytes
    uri: str = ""
    password: str = ""
    ocr_languages: str = "eng"


class BlockKind(StrEnum):
    """What a block is; a heading belongs to what follows it.

    A table of any format is one block of Markdown lines, written by `Writer.table`: the header, the line of dashes,
    then a line a row. A chunker that parts it repeats the first two.
    """

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    ITEM = "item"
    TABLE = "table"
    CODE = "code"


class Block(BaseModel):
    """A half-open byte range of the text, the headings above it (a heading's own last), its page or 0."""

    model_config = ConfigDict(frozen=True)

    start: int
    end: int
    kind: BlockKind = BlockKind.PARAGRAPH
    heading_path: tuple[str, ...] = ()
    page: int = 0


class Extract(BaseModel):
    """A document's text and what the parser learned beside it; blocks ascend and do not overlap."""

    model_config = ConfigDict(frozen=True)

    text: str
    blocks: tuple[Block, ...]
    media_type: str
    parser: str
    title: str = ""
    page_count: int = 0
    metadata: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()


class Writer:
    """Collects blocks into an Extract; lives for one document."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._size = 0
        self._path: list[tuple[int, str]] = []
        self.page = 0

    @property
    def empty(self) -> bool:
        """Whether no block has been written."""
        return not self._blocks

    def heading(self, level: int, text: str) -> None:
        """Write a heading; it takes the place of those at its level and below."""
        words = " ".join(text.split())
        if words:
            self._path = [(depth, above) for depth, above in self._path if depth < level]
            self._path.append((level, words))
            self.block(words, BlockKind.HEADING)

    def close_headings(self) -> None:
        """What follows stands under none of the headings so far."""
        self._path = []

    def block(self, text: str, kind: BlockKind = BlockKind.PARAGRAPH) -> None:
        """Write a block under the headings so far; blank text is left out."""
        clean = cleaned(text)
        if not clean.strip():
            return
        # Items follow each other without a blank line between them.
        tight = kind is BlockKind.ITEM and self._blocks and self._blocks[-1].kind is kind
        self._append(("\n" if tight else "\n\n") if self._blocks else "")
        start = self._size
        self._append(clean)
        path = tuple(text for _, text in self._path)
        self._blocks.append(Block(start=start, end=self._size, kind=kind, heading_path=path, page=self.page))

    def table(self, rows: Iterable[Sequence[str]]) -> None:
        """Write a table, its first row as the header.

        Rows may differ in length; rows and columns without words are left out. A lone cell is a paragraph: such
        tables are there for the layout.
        """
        lines = _cells(rows)
        if len(lines) == 1 and len(lines[0]) == 1:
            self.block(lines[0][0])
        elif lines:
            lines.insert(1, ["---"] * len(lines[0]))
            self.block("\n".join(f"| {' | '.join(line)} |" for line in lines), BlockKind.TABLE)

    def extend(self, part: "Extract") -> None:
        """Write the blocks of an extract, for documents that hold others; its headings are this document's."""
        text = part.text.encode()
        for block in part.blocks:
            words = text[block.start : block.end].decode()
            if block.kind is BlockKind.HEADING:
                self.heading(len(block.heading_path), words)
            else:
                self.block(words, block.kind)

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._size += len(text.encode())

    def extract(
        self,
        media_type: str,
        parser: str,
        *,
        title: str = "",
        page_count: int = 0,
        metadata: Mapping[str, Any] | None = None,
        warnings: Sequence[str] = (),
    ) -> Extract:
        """What was written."""
        return Extract(
            text="".join(self._parts),
            blocks=tuple(self._blocks),
            media_type=media_type,
            parser=parser,
            title=" ".join(title.split()),
            page_count=page_count,
            metadata=dict(metadata or {}),
            warnings=tuple(warnings),
        )


def _cells(rows: Iterable[Sequence[str]]) -> list[list[str]]:
    """The rows that have words, all as wide as the widest, without columns that have none; each cell one line."""
    filled = [row for row in ([_cell(cell) for cell in row] for row in rows) if any(row)]
    width = max(map(len, filled), default=0)
    used = [column for column in range(width) if any(column < len(row) and row[column] for row in filled)]
    return [[row[column] if column < len(row) else "" for column in used] for row in filled]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def cleaned(text: str) -> str:
    """The text with line feeds only; control characters, soft hyphens, outer blank lines and trailing spaces go."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    text = _CONTROL.sub("", text)
    text = _BLANK_LINES.sub("\n\n", text)
    return text.strip("\n").rstrip()
