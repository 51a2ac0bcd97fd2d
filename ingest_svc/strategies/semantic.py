"""Semantic chunking: a text is parted where the meaning of neighbouring sentences differs most.

As G. Kamradt's "5 Levels of Text Splitting" has it, and LangChain's and LlamaIndex's semantic splitters after it: each
sentence is encoded among its neighbours, and a cosine distance above a threshold ends a chunk.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ingest_svc.chunking import Chunk, Encoded, Strategy
from ingest_svc.extract import Block, BlockKind, Extract
from ingest_svc.strategies.measured_text import MeasuredText
from ingest_svc.strategies.packing import Packer, SizeParameters, Span, Unit, to_chunks
from ingest_svc.strategies.sections import sections

# Vectors that one document may ask for: of a longer one the sentences are encoded several together.
_MAX_PROBES = 16_384
# Shorter sentences, which abbreviations make too, mean little by themselves.
_MIN_SENTENCE_BYTES = 24
_MAX_PROBE_BYTES = 4096


class Threshold(StrEnum):
    """How the distance above which a chunk ends is taken from all of a document's."""

    PERCENTILE = "percentile"
    STANDARD_DEVIATION = "standard_deviation"
    INTERQUARTILE = "interquartile"


_AMOUNTS = {Threshold.PERCENTILE: 95.0, Threshold.STANDARD_DEVIATION: 3.0, Threshold.INTERQUARTILE: 1.5}


class SemanticParameters(SizeParameters):
    """Bounds in tokens of the collection's encoder, and what counts as a change of subject."""

    overlap_tokens: int = Field(
        0, ge=0, le=4096, description="Most tokens that a chunk repeats of the one before it, on the same subject."
    )
    min_tokens: int = Field(60, ge=0, le=4096, description="No change of subject ends a chunk with fewer tokens.")
    threshold: Threshold = Field(
        Threshold.PERCENTILE,
        description="What `amount` is: a percentile of the distances, or standard deviations or interquartile ranges "
        "above their mean.",
    )
    amount: float | None = Field(
        None, ge=0, le=100, description="Where a chunk ends; null for 95, 3 or 1.5, as the threshold is."
    )
    neighbours: int = Field(1, ge=0, le=8, description="Sentences on each side that are encoded together with one.")


class SemanticStrategy(Strategy):
    """Needs a vector for each sentence, and so about as much encoding again as the chunks themselves."""

    name = "semantic"
    description = (
        "Keeps text under one heading together and parts it where the vectors of neighbouring sentences differ most; "
        "costs a vector for each sentence."
    )
    parameters = SemanticParameters

    def probes(self, extract: Extract, parameters: Any) -> Sequence[str]:
        text = MeasuredText(extract.text, ())
        return [probe for section in _sentences(extract, text) for probe in _probes(section, text, parameters)]

    def cut(self, extract: Extract, encoded: Encoded, parameters: Any) -> list[Chunk]:
        text = MeasuredText(extract.text, encoded.token_ends)
        found = list(_sentences(extract, text))
        distances = _distances(encoded.vectors)
        firsts = np.cumsum([0, *map(len, found)])
        # Those of neighbours: from a section's last sentence to the next one's first a chunk ends anyway.
        within = [distances[first : last - 1] for first, last in pairwise(firsts)]
        limit = _limit(np.concatenate([*within, []]), parameters)
        cutter = _Cutter(Packer(text, parameters), extract.blocks, parameters, limit)
        spans = (span for pair in zip(found, within, strict=True) for span in cutter.spans(*pair))
        return to_chunks(text, spans)


class _Cutter:
    """Parts sections by distances; lives for one cut."""

    def __init__(self, packer: Packer, blocks: Sequence[Block], parameters: SemanticParameters, limit: float) -> None:
        self._packer = packer
        self._blocks = blocks
        self._starts = [block.start for block in blocks]
        self._min_tokens = parameters.min_tokens
        self._limit = limit

    def spans(self, sentences: Sequence[Unit], distances: NDArray[np.float64]) -> Iterator[Span]:
        """The chunks of a section, whose sentences have these distances between them."""
        units: list[Unit] = []
        costs: list[float] = []
        for sentence, distance in zip(sentences, [0.0, *distances], strict=True):
            if units and distance > self._limit and self._tokens(units) >= self._min_tokens:
                yield from self._packer.spans(units, costs)
                units, costs = [], []
            parts = list(self._parts(sentence))
            units += parts
            # A chunk that is too long ends where the subject changes most, and not within a sentence.
            costs += [-float(distance), *[np.inf] * (len(parts) - 1)]
        yield from self._packer.spans(units, costs)

    def _parts(self, sentence: Unit) -> Iterator[Unit]:
        parts = list(self._packer.words(sentence.start, sentence.end, sentence.block))
        if len(parts) == 1:
            return iter(parts)
        # Several blocks may be one sentence, where they are short.
        return (replace(part, block=self._blocks[bisect_right(self._starts, part.start) - 1]) for part in parts)

    def _tokens(self, units: Sequence[Unit]) -> int:
        return self._packer.text.count(units[0].start, units[-1].end)


def _sentences(extract: Extract, text: MeasuredText) -> Iterator[list[Unit]]:
    """The sentences of each section; a heading goes with the one after it."""
    least = max(_MIN_SENTENCE_BYTES, len(text.bytes) // _MAX_PROBES)
    for section in sections(extract.blocks, lambda block: block.heading_path):
        found: list[Unit] = []
        for start, end, block in _ranges(section, text):
            before = found[-1] if found else None
            if before and (before.block.kind is BlockKind.HEADING or before.end - before.start < least):
                found[-1] = Unit(before.start, end, block if before.block.kind is BlockKind.HEADING else before.block)
            else:
                found.append(Unit(start, end, block))
        if found:
            yield found


def _ranges(section: Sequence[Block], text: MeasuredText) -> Iterator[tuple[int, int, Block]]:
    for block in section:
        parted = text.sentences if block.kind is BlockKind.PARAGRAPH else text.lines
        for first, last in parted(block.start, block.end):
            start, end = text.stripped(first, last)
            if start < end:
                yield start, end, block


def _probes(section: Sequence[Unit], text: MeasuredText, parameters: SemanticParameters) -> Iterator[str]:
    """Each sentence of a section among its neighbours."""
    around = parameters.neighbours
    for place in range(len(section)):
        among = section[max(place - around, 0) : place + around + 1]
        end = min(among[-1].end, among[0].start + _MAX_PROBE_BYTES)
        yield text.bytes[among[0].start : end].decode(errors="ignore")


def _distances(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """The cosine distance of each vector from the next one."""
    wide = vectors.astype(np.float64)
    unit = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return np.asarray(1.0 - np.einsum("ij,ij->i", unit[:-1], unit[1:]))


def _limit(distances: NDArray[np.float64], parameters: SemanticParameters) -> float:
    """The distance above which a chunk ends."""
    if distances.size == 0:
        return np.inf
    amount = _AMOUNTS[parameters.threshold] if parameters.amount is None else parameters.amount
    if parameters.threshold is Threshold.PERCENTILE:
        return float(np.percentile(distances, amount))
    if parameters.threshold is Threshold.STANDARD_DEVIATION:
        return float(distances.mean() + amount * distances.std())
    low, high = np.percentile(distances, [25, 75])
    return float(distances.mean() + amount * (high - low))
