"""Chunks filled with units of a text: as many in each as fit, the end of the one before repeated."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field, model_validator

from ingest_svc.chunking import Chunk, Parameters
from ingest_svc.extract import Block, BlockKind
from ingest_svc.strategies.measured_text import MeasuredText


class SizeParameters(Parameters):
    """Bounds in tokens of the collection's encoder; the default overlap shrinks with the size."""

    max_tokens: int = Field(180, ge=16, le=8192, description="Most tokens in a chunk.")
    overlap_tokens: int = Field(
        30,
        ge=0,
        le=4096,
        description="Most tokens that a chunk repeats of the one before it, where a paragraph is parted.",
    )

    @model_validator(mode="before")
    @classmethod
    def _default_overlap_fits(cls, given: dict[str, Any]) -> dict[str, Any]:
        size = given.get("max_tokens")
        if "overlap_tokens" in given or not isinstance(size, int | float):
            return given
        return {**given, "overlap_tokens": max(min(cls.model_fields["overlap_tokens"].default, int(size) // 2), 0)}

    @model_validator(mode="after")
    def _overlap_is_the_smaller_part(self) -> Self:
        if self.overlap_tokens * 2 > self.max_tokens:
            raise ValueError(f"overlap_tokens ({self.overlap_tokens}) must be at most half of max_tokens")
        return self


@dataclass(frozen=True, slots=True)
class Unit:
    """A range of bytes that is not parted any more, and the block in which it begins."""

    start: int
    end: int
    block: Block


@dataclass(frozen=True, slots=True)
class Span:
    """A chunk to be: its bytes, and the block that says where it stands."""

    start: int
    end: int
    block: Block


class Packer:
    """Fills chunks of one text; lives for one cut."""

    def __init__(self, text: MeasuredText, sizes: SizeParameters) -> None:
        self.text = text
        self._max = sizes.max_tokens
        self._overlap = sizes.overlap_tokens
        # A part of a block always fits into a chunk with the overlap before it.
        self._unit_max = sizes.max_tokens - sizes.overlap_tokens

    def units(self, blocks: Iterable[Block]) -> Iterator[Unit]:
        """The blocks, those that are too long parted into sentences or lines, and where that is too long at words."""
        for block in blocks:
            yield from self.parts(block.start, block.end, block)

    def parts(self, start: int, end: int, block: Block) -> Iterator[Unit]:
        """As `units`, for a range that begins in the block."""
        start, end = self.text.stripped(start, end)
        if self.text.count(start, end) <= self._max:
            yield from self._unit(start, end, block)
            return
        parted = self.text.sentences if block.kind is BlockKind.PARAGRAPH else self.text.lines
        for first, last in parted(start, end):
            yield from self.words(first, last, block)

    def words(self, start: int, end: int, block: Block) -> Iterator[Unit]:
        """The range, parted between words where it is too long."""
        while self.text.count(start, end) > self._unit_max:
            cut = self.text.fit(start, end, self._unit_max)
            yield from self._unit(start, cut, block)
            start = cut
        yield from self._unit(start, end, block)

    def spans(self, units: Sequence[Unit], costs: Sequence[float] = ()) -> Iterator[Span]:
        """The units, as many in each chunk as fit.

        With `costs` a chunk may be filled by half only, so as to end before the unit of the least cost.
        """
        begun, before = 0, -1
        while begun < len(units):
            start, stop = self._start(units, begun), begun + 1
            # A short chunk is not repeated whole.
            start = start if start > before else units[begun].start
            while stop < len(units) and self.text.count(start, units[stop].end) <= self._max:
                stop += 1
            if costs and stop < len(units):
                stop = min(range(stop, (begun + stop) // 2, -1), key=costs.__getitem__)
            yield Span(start, units[stop - 1].end, first(units[begun:stop]).block)
            begun, before = stop, start

    def _unit(self, start: int, end: int, block: Block) -> Iterator[Unit]:
        start, end = self.text.stripped(start, end)
        if start < end:
            yield Unit(start, end, block)

    def _start(self, units: Sequence[Unit], begun: int) -> int:
        """Where the chunk of the units from `begun` on starts: with them, or with the overlap before them."""
        unit = units[begun]
        if begun == 0 or self._overlap == 0 or not self._goes_on(units[begun - 1], unit):
            return unit.start
        start = self._overlap_start(units, begun)
        return start if self.text.count(start, unit.end) <= self._max else unit.start

    def _goes_on(self, before: Unit, unit: Unit) -> bool:
        """Whether a cut between them parts what belongs together: a block or, over a page's end, a sentence."""
        if before.block is unit.block:
            return unit.block.kind is not BlockKind.TABLE
        paragraphs = before.block.kind is unit.block.kind is BlockKind.PARAGRAPH
        return paragraphs and not self.text.ends_sentence(before.end)

    def _overlap_start(self, units: Sequence[Unit], begun: int) -> int:
        """Where the repeated part of the units before begins: at a unit, else within the last one."""
        end, place = units[begun - 1].end, begun
        while place > 0 and self.text.count(units[place - 1].start, end) <= self._overlap:
            if not self._goes_on(units[place - 1], units[place]):
                break
            place -= 1
        return units[place].start if place < begun else self.text.back(units[begun - 1].start, end, self._overlap)


def to_chunks(text: MeasuredText, spans: Iterable[Span]) -> list[Chunk]:
    """The spans as chunks, in their order."""
    return [text.chunk(ordinal, span.start, span.end, span.block) for ordinal, span in enumerate(spans)]


def first(units: Sequence[Unit]) -> Unit:
    """The unit that says where a chunk stands: its first text, since headings may open a section together."""
    return next((unit for unit in units if unit.block.kind is not BlockKind.HEADING), units[-1])
