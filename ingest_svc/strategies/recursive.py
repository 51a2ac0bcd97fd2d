"""Recursive chunking: headings part a text first, then paragraphs, then sentences, then words."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field, model_validator

from ingest_svc.chunking import Chunk, Encoded, Parameters, Strategy
from ingest_svc.extract import Block, BlockKind, Extract

# Encoders make one unknown token of a run without spaces, however long: a chunk's bytes are bounded too.
_MAX_BYTES_PER_TOKEN = 32
_SENTENCE_ENDS = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+|(?<=[。！？；])[”’」』）]*\s*")
_LINE_ENDS = re.compile(r"\n+")
_BLANKS = (b" ", b"\n", b"\t")


class RecursiveParameters(Parameters):
    """Bounds in tokens of the collection's encoder."""

    max_tokens: int = Field(180, ge=16, le=8192, description="Most tokens in a chunk.")
    overlap_tokens: int = Field(
        30,
        ge=0,
        le=4096,
        description="Most tokens that a chunk repeats of the one before it, under the same headings.",
    )

    @model_validator(mode="after")
    def _overlap_is_the_smaller_part(self) -> Self:
        if self.overlap_tokens * 2 > self.max_tokens:
            raise ValueError("overlap_tokens must be at most half of max_tokens")
        return self


class RecursiveStrategy(Strategy):
    """Structure first; see its description."""

    name = "recursive"
    description = (
        "Keeps text under one heading together, parts it at paragraphs, where those are too long at sentences, "
        "where those are at words; a chunk repeats the end of the one before it."
    )
    parameters = RecursiveParameters

    def cut(self, extract: Extract, encoded: Encoded, parameters: Any) -> list[Chunk]:
        """Chunks that together hold every word of the text, none with more than `max_tokens` tokens."""
        cutter = _Cutter(extract.text.encode(), encoded.token_ends, parameters)
        spans = [found for section in _sections(extract.blocks) for found in cutter.spans(section)]
        return [cutter.chunk(ordinal, span) for ordinal, span in enumerate(spans)]


@dataclass(frozen=True, slots=True)
class _Unit:
    """A range of bytes that is not parted any more, and the block in which it begins."""

    start: int
    end: int
    block: Block


@dataclass(frozen=True, slots=True)
class _Span:
    """A chunk to be: its bytes, and its first text that the chunk before does not have."""

    start: int
    end: int
    first: _Unit


def _sections(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Runs of blocks under the same headings; headings without text open the section that follows."""
    section: list[Block] = []
    for block in blocks:
        opens = bool(section) and block.heading_path != section[-1].heading_path
        if opens and any(member.kind is not BlockKind.HEADING for member in section):
            yield section
            section = []
        section.append(block)
    if section:
        yield section


class _Cutter:
    """Cuts one text; lives for one call. All places are bytes of the text."""

    def __init__(self, text: bytes, token_ends: Sequence[int], parameters: RecursiveParameters) -> None:
        self._text = text
        self._ends = token_ends
        self._bounded = list(_bounded(token_ends, len(text)))
        self._max = parameters.max_tokens
        self._overlap = parameters.overlap_tokens
        # A unit and the overlap before it always fit into a chunk.
        self._unit_max = parameters.max_tokens - parameters.overlap_tokens

    def spans(self, section: Sequence[Block]) -> Iterator[_Span]:
        """Fill chunks with the section's units, as many in each as fit."""
        units = [unit for block in section for unit in self._units(block)]
        begun = 0
        while begun < len(units):
            start, stop = self._start(units, begun), begun + 1
            while stop < len(units) and self._count(start, units[stop].end) <= self._max:
                stop += 1
            yield _Span(start, units[stop - 1].end, _first(units[begun:stop]))
            begun = stop

    def _start(self, units: Sequence[_Unit], begun: int) -> int:
        """Where the chunk of the units from `begun` on starts: with them, or with the overlap before them."""
        unit = units[begun]
        if begun == 0 or self._overlap == 0:
            return unit.start
        start = self._overlap_start(units[:begun])
        return start if self._count(start, unit.end) <= self._max else unit.start

    def chunk(self, ordinal: int, span: _Span) -> Chunk:
        start, end = self._stripped(span.start, span.end)
        block = span.first.block
        return Chunk(
            ordinal,
            start,
            end,
            self._text[start:end].decode(),
            block.heading_path,
            block.page,
            _between(self._ends, start, end),
        )

    def _units(self, block: Block) -> Iterator[_Unit]:
        start, end = self._stripped(block.start, block.end)
        if self._count(start, end) <= self._unit_max:
            yield from self._unit(start, end, block)
            return
        for first, last in self._sentences(start, end, block.kind):
            while self._count(first, last) > self._unit_max:
                cut = self._word_end(first, last)
                yield from self._unit(first, cut, block)
                first = cut  # noqa: PLW2901 - the rest of the sentence
            yield from self._unit(first, last, block)

    def _unit(self, start: int, end: int, block: Block) -> Iterator[_Unit]:
        start, end = self._stripped(start, end)
        if start < end:
            yield _Unit(start, end, block)

    def _sentences(self, start: int, end: int, kind: BlockKind) -> Iterator[tuple[int, int]]:
        """The sentences of a range or, where lines are what is written in, its lines."""
        text = self._text[start:end].decode()
        place = 0
        for found in (_SENTENCE_ENDS if kind is BlockKind.PARAGRAPH else _LINE_ENDS).finditer(text):
            size = len(text[place : found.end()].encode())
            yield start, start + size
            start, place = start + size, found.end()
        if start < end:
            yield start, end

    def _word_end(self, start: int, end: int) -> int:
        """Where to cut a sentence that is too long: as late as possible, between words where there are any."""
        limit = self._bounded[bisect_right(self._bounded, start) + self._unit_max - 1]
        if self._count(start, limit) > self._unit_max:
            # The tokens of one character end together: cut before it.
            limit = self._bounded[bisect_left(self._bounded, limit) - 1]
        limit = self._character_end(start, min(limit, end))
        space = max(self._text.rfind(blank, start, limit + 1) for blank in _BLANKS)
        return space if space > start + (limit - start) // 2 else limit

    def _character_end(self, start: int, place: int) -> int:
        """The last place up to `place` that parts no character, or the first one after `start`."""
        before = place
        while before > start and self._inside(before):
            before -= 1
        if before > start:
            return before
        while self._inside(place) or place == start:
            place += 1
        return place

    def _inside(self, place: int) -> bool:
        """Whether the byte is one of UTF-8's that continue a character."""
        return place < len(self._text) and self._text[place] & 0xC0 == 0x80  # noqa: PLR2004 - as RFC 3629 has it

    def _overlap_start(self, before: Sequence[_Unit]) -> int:
        """Where the repeated part of the units before begins: at a unit, else at a sentence, else at a word."""
        end = before[-1].end
        whole = [unit.start for unit in before if self._count(unit.start, end) <= self._overlap]
        if whole:
            return whole[0]
        limit = self._bounded[bisect_right(self._bounded, end) - self._overlap - 1]
        limit = self._character_end(before[-1].start, limit)
        starts = [start for start, _ in self._sentences(limit, end, before[-1].block.kind)][1:]
        space = self._text.find(b" ", limit, end)
        return starts[0] if starts else max(limit, space)

    def _count(self, start: int, end: int) -> int:
        return _between(self._bounded, start, end)

    def _stripped(self, start: int, end: int) -> tuple[int, int]:
        text = self._text[start:end].decode()
        head = len(text) - len(text.lstrip())
        kept = text.strip()
        start += len(text[:head].encode())
        return start, start + len(kept.encode())


def _first(units: Sequence[_Unit]) -> _Unit:
    """The unit that says where a chunk stands: its first text, since headings may open a section together."""
    return next((unit for unit in units if unit.block.kind is not BlockKind.HEADING), units[-1])


def _between(ends: Sequence[int], start: int, end: int) -> int:
    return bisect_right(ends, end) - bisect_right(ends, start)


def _bounded(token_ends: Sequence[int], size: int) -> Iterator[int]:
    """The token ends, and more of them where they are too far apart."""
    last = 0
    for end in token_ends:
        yield from range(last + _MAX_BYTES_PER_TOKEN, end, _MAX_BYTES_PER_TOKEN)
        yield end
        last = end
    yield from range(last + _MAX_BYTES_PER_TOKEN, size, _MAX_BYTES_PER_TOKEN)
