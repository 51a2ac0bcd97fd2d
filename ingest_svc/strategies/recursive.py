"""Recursive chunking: headings part a text first, then paragraphs, then sentences, then words."""

from typing import Any

from ingest_svc.chunking import Chunk, Encoded, Strategy
from ingest_svc.extract import Extract
from ingest_svc.strategies.measured_text import MeasuredText
from ingest_svc.strategies.packing import Packer, SizeParameters, to_chunks
from ingest_svc.strategies.sections import sections


class RecursiveStrategy(Strategy):
    """Fills chunks from one section at a time."""

    name = "recursive"
    description = (
        "Keeps text under one heading together, parts it at paragraphs, where those are too long at sentences, "
        "where those are at words; where a paragraph is parted, a chunk repeats the end of the one before it."
    )
    parameters = SizeParameters

    def cut(self, extract: Extract, encoded: Encoded, parameters: Any) -> list[Chunk]:
        text = MeasuredText(extract.text, encoded.token_ends)
        packer = Packer(text, parameters)
        found = sections(extract.blocks, lambda block: block.heading_path)
        return to_chunks(text, (span for section in found for span in packer.spans(list(packer.units(section)))))
