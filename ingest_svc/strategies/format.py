"""Format chunking: a chunk for each section, page, slide or table that a document has."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ingest_svc.chunking import Chunk, Encoded, Strategy
from ingest_svc.extract import Block, BlockKind, Extract
from ingest_svc.strategies.measured_text import MeasuredText
from ingest_svc.strategies.packing import Packer, Span
from ingest_svc.strategies.sections import SectionParameters, cut_sections, whole

_MAX_HEADER_CHARS = 256
_CELL_EDGES = "| \t"


class FormatStrategy(Strategy):
    """Follows what the format marks."""

    name = "format"
    description = (
        "Makes a chunk of each section, page, slide and table, joins those that are small and parts those that are too "
        "long at paragraphs, sentences and rows; a parted table has its header row among the headings of each part."
    )
    parameters = SectionParameters

    def cut(self, extract: Extract, encoded: Encoded, parameters: Any) -> list[Chunk]:
        return cut_sections(extract, encoded, parameters, _place, _spans)


def _place(block: Block) -> object:
    return block.heading_path, block.page, block.kind is BlockKind.TABLE


def _spans(section: Sequence[Block], packer: Packer, max_tokens: int) -> Iterator[Span]:
    if packer.text.count(section[0].start, section[-1].end) <= max_tokens:
        yield whole(section)
        return
    table = next((block for block in section if block.kind is BlockKind.TABLE), None)
    for place, span in enumerate(packer.spans(list(packer.units(section)))):
        yield _with_header(span, table, packer.text) if table and place else span


def _with_header(span: Span, table: Block, text: MeasuredText) -> Span:
    """The part of a table with the names of its columns as its last heading.

    They do not go into the text itself: that stands word for word in the document, as citations need it.
    """
    row = text.bytes[table.start : table.end].decode().split("\n", 1)[0]
    header = row[:_MAX_HEADER_CHARS].strip(_CELL_EDGES)
    path = (*span.block.heading_path, header)
    return replace(span, block=span.block.model_copy(update={"heading_path": path})) if header else span
