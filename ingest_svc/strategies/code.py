"""Code chunking: a chunk for each function, method or class that a parser found in a program's syntax tree."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field

from ingest_svc.chunking import Chunk, Encoded, Strategy
from ingest_svc.extract import Block, Extract
from ingest_svc.strategies.measured_text import MeasuredText
from ingest_svc.strategies.packing import Packer, Span
from ingest_svc.strategies.sections import SectionParameters, cut_sections, whole

_INDENT = b" \t"
_MAX_INDENT = 1024


class CodeParameters(SectionParameters):
    """Bounds in tokens of the collection's encoder."""

    overlap_tokens: int = Field(
        0, ge=0, le=4096, description="Most tokens that a part of a long function repeats of the one before it."
    )


class CodeStrategy(Strategy):
    """Follows the blocks of a parsed program, whose heading paths are the signatures around them."""

    name = "code"
    description = (
        "Makes a chunk of each function, method and class header, under the signatures around it; joins those that are "
        "small and parts those that are too long between lines, where the next one is indented least."
    )
    parameters = CodeParameters

    def cut(self, extract: Extract, encoded: Encoded, parameters: Any) -> list[Chunk]:
        return cut_sections(extract, encoded, parameters, _place, _spans)


def _place(block: Block) -> object:
    return block.heading_path, block.page


def _spans(section: Sequence[Block], packer: Packer, max_tokens: int) -> Iterator[Span]:
    text = packer.text
    if text.count(section[0].start, section[-1].end) <= max_tokens:
        yield whole(section)
        return
    lines = [(start, end, block) for block in section for start, end in text.lines(block.start, block.end)]
    units = [unit for start, end, block in lines for unit in packer.words(start, end, block)]
    yield from packer.spans(units, [_indent(text, unit.start) for unit in units])


def _indent(text: MeasuredText, start: int) -> int:
    """The blanks before the first word of a line; a part of a line that was too long counts as indented most."""
    before = text.bytes[max(start - _MAX_INDENT, 0) : start].rpartition(b"\n")[2]
    return _MAX_INDENT if before.strip(_INDENT) else len(before)
