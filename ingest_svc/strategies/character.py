"""Character chunking: windows of as many characters as fit, ended at a separator where one is near."""

from typing import Any, Self

from pydantic import Field, model_validator

from ingest_svc.chunking import Chunk, Encoded, Parameters, Strategy
from ingest_svc.extract import Extract
from ingest_svc.strategies.measured_text import MeasuredText
from ingest_svc.strategies.packing import to_chunks
from ingest_svc.strategies.windows import windows

_MAX_CHARACTER_BYTES = 4


class CharacterParameters(Parameters):
    """Bounds in characters, and in tokens of the collection's encoder."""

    max_characters: int = Field(800, ge=16, le=65536, description="Most characters in a chunk.")
    overlap_characters: int = Field(
        0, ge=0, le=32768, description="Most characters that a chunk repeats of the one before it."
    )
    separators: tuple[str, ...] = Field(
        ("\n\n", "\n", "。", ". ", " "),
        max_length=16,
        description="What a chunk ends after, the first that stands in its later half; at no separator else.",
    )
    max_tokens: int = Field(240, ge=16, le=8192, description="Most tokens in a chunk, however few its characters.")

    @model_validator(mode="after")
    def _overlap_is_the_smaller_part(self) -> Self:
        if self.overlap_characters * 2 > self.max_characters:
            raise ValueError(f"overlap_characters ({self.overlap_characters}) must be at most half of max_characters")
        if "" in self.separators:
            raise ValueError("separators must not be empty")
        return self


class CharacterStrategy(Strategy):
    """Needs no tokenizer to foresee its sizes."""

    name = "character"
    description = (
        "Cuts windows of so many characters, each ended after the first separator that stands in its later half."
    )
    parameters = CharacterParameters

    def cut(self, extract: Extract, encoded: Encoded, parameters: Any) -> list[Chunk]:
        window = _Window(MeasuredText(extract.text, encoded.token_ends), parameters)
        return to_chunks(window.text, windows(window.text, extract.blocks, window.reach, window.back))


class _Window:
    """Where windows of one text end and start; lives for one cut. All places are bytes of the text."""

    def __init__(self, text: MeasuredText, parameters: CharacterParameters) -> None:
        self.text = text
        self._parameters = parameters
        self._separators = [separator.encode() for separator in parameters.separators]

    def reach(self, start: int, done: int) -> int:
        limit = self._forward(start, self._parameters.max_characters)
        fitting = self.text.fit(start, limit, self._parameters.max_tokens, after=done)
        if fitting == len(self.text.bytes):
            return fitting
        lowest = max(done, start + (fitting - start) // 2)
        ended = (self.text.bytes.rfind(each, lowest, fitting) + len(each) for each in self._separators)
        return next((place for place in ended if place > lowest), fitting)

    def back(self, start: int, end: int) -> int:
        characters = min(self._parameters.overlap_characters, len(self.text.bytes[start:end].decode()) // 2)
        if characters == 0:
            return end
        tail = self.text.bytes[start:end].decode()[-characters:]
        return self.text.word_start(start, self.text.character_start(end - len(tail.encode()), end), end)

    def _forward(self, start: int, characters: int) -> int:
        """So many characters further on, or the end of the text."""
        ahead = self.text.bytes[start : start + characters * _MAX_CHARACTER_BYTES].decode(errors="ignore")
        place = start + len(ahead[:characters].encode())
        return self.text.character_end(start, place) if place < len(self.text.bytes) else place
