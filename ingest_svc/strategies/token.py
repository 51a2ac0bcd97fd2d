"""Token chunking: windows of as many tokens as fit."""

from typing import Any

from pydantic import Field

from ingest_svc.chunking import Chunk, Encoded, Strategy
from ingest_svc.extract import Extract
from ingest_svc.strategies.measured_text import MeasuredText
from ingest_svc.strategies.packing import SizeParameters, to_chunks
from ingest_svc.strategies.windows import windows


class TokenParameters(SizeParameters):
    """Bounds in tokens of the collection's encoder."""

    overlap_tokens: int = Field(30, ge=0, le=4096, description="Most tokens that a chunk repeats of the one before it.")


class TokenStrategy(Strategy):
    """Looks at no structure, so that all chunks but the last are of one size."""

    name = "token"
    description = (
        "Cuts windows of so many tokens, whatever they hold, each repeating the end of the one before; no word is "
        "parted that has spaces around it."
    )
    parameters = TokenParameters

    def cut(self, extract: Extract, encoded: Encoded, parameters: Any) -> list[Chunk]:
        text = MeasuredText(extract.text, encoded.token_ends)
        size = len(text.bytes)

        def reach(start: int, done: int) -> int:
            return text.fit(start, size, parameters.max_tokens, after=done)

        def back(start: int, end: int) -> int:
            return text.back(start, end, parameters.overlap_tokens)

        return to_chunks(text, windows(text, extract.blocks, reach, back))
