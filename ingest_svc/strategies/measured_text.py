"""A text measured in an encoder's tokens: how much stands where, and where it may be cut."""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from ingest_svc.chunking import Chunk
from ingest_svc.extract import Block

# Encoders make one unknown token of a run without spaces, however long: a chunk's bytes are bounded too.
_MAX_BYTES_PER_TOKEN = 32
# Characters that stand on or after another: no more of them are kept together with it than words have.
_MAX_MARKS = 8
_MARKS = ("Mn", "Mc", "Me")
_SENTENCE_ENDS = re.compile(r"(?<=[.!?…؟\u06d4।॥။។])[\"'”’»)\]]*\s+|(?<=[。！？；｡])[”’」』）]*\s*")
_SENTENCE_END = re.compile(r"[.!?…؟\u06d4।॥។。！？；｡:：][\"'”’»)\]」』）]*\Z")
_MAX_END_BYTES = 16
_LINE_ENDS = re.compile(r"\n+")
_BLANKS = (b" ", b"\n", b"\t")
_BLANK = re.compile(rb"[ \n\t]")
# Text that goes on longer without a blank is not written with spaces between words.
_MAX_WORD_BYTES = 64


class MeasuredText:
    """A text and where its tokens end; lives for one cut. All places are bytes of the text."""

    def __init__(self, text: str, token_ends: Sequence[int]) -> None:
        self.bytes = text.encode()
        self._ends = token_ends
        self._bounded = list(_bounded(token_ends, len(self.bytes)))

    def count(self, start: int, end: int) -> int:
        """The tokens of a range; a token of too many bytes counts as several."""
        return _between(self._bounded, start, end)

    def stripped(self, start: int, end: int) -> tuple[int, int]:
        """The range without the blanks at its ends."""
        text = self.bytes[start:end].decode()
        kept = text.strip()
        start += len(text[: len(text) - len(text.lstrip())].encode())
        return start, start + len(kept.encode())

    def sentences(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The sentences of a range, each with the blanks after it."""
        return self._parted(_SENTENCE_ENDS, start, end)

    def ends_sentence(self, place: int) -> bool:
        """Whether a sentence ends there."""
        return (
            _SENTENCE_END.search(self.bytes[max(place - _MAX_END_BYTES, 0) : place].decode(errors="ignore")) is not None
        )

    def lines(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The lines of a range, each with the blank ones after it."""
        return self._parted(_LINE_ENDS, start, end)

    def fit(self, start: int, end: int, max_tokens: int, after: int = 0) -> int:
        """How far a range may go on with so many tokens: to its end, else between words, else characters.

        It goes on further than `start` at any rate and, where words would end it there or before, than `after`.
        """
        if self.count(start, end) <= max_tokens:
            return end
        limit = self._bounded[bisect_right(self._bounded, start) + max_tokens - 1]
        if self.count(start, limit) > max_tokens:
            # The tokens of one character end together: cut before it.
            limit = self._bounded[bisect_left(self._bounded, limit) - 1]
        limit = self.character_end(start, min(limit, end))
        space = max(self.bytes.rfind(blank, start, limit + 1) for blank in _BLANKS)
        return space if space > max(after, start + (limit - start) // 2) else limit

    def back(self, start: int, end: int, max_tokens: int) -> int:
        """Where the last so many tokens of a range begin: at a sentence, else at a word, else at a character."""
        if max_tokens == 0:
            return end
        if self.count(start, end) <= max_tokens:
            return start
        limit = self.character_start(self._bounded[bisect_right(self._bounded, end) - max_tokens - 1], end)
        starts = [place for place, _ in self.sentences(limit, end)][1:]
        return starts[0] if starts else self.word_start(start, limit, end)

    def word_start(self, start: int, place: int, end: int) -> int:
        """Where the first word from `place` on begins; `end` for none; in text without spaces `place` itself."""
        blank = _BLANK.search(self.bytes, max(place - 1, start), end)
        if blank:
            return blank.end()
        return end if _BLANK.search(self.bytes, max(place - _MAX_WORD_BYTES, start), place) else place

    def character_start(self, place: int, end: int) -> int:
        """The first place from `place` on that parts no character, at most `end`."""
        while place < end and (self._inside(place) or self._is_mark(place)):
            place += 1
        return place

    def chunk(self, ordinal: int, start: int, end: int, block: Block) -> Chunk:
        """The range, without the blanks at its ends, as a chunk under the headings and on the page of the block."""
        start, end = self.stripped(start, end)
        text, count = self.bytes[start:end].decode(), _between(self._ends, start, end)
        return Chunk(ordinal, start, end, text, block.heading_path, block.page, count)

    def _parted(self, ends: re.Pattern[str], start: int, end: int) -> Iterator[tuple[int, int]]:
        text = self.bytes[start:end].decode()
        place = 0
        for found in ends.finditer(text):
            size = len(text[place : found.end()].encode())
            yield start, start + size
            start, place = start + size, found.end()
        if start < end:
            yield start, end

    def character_end(self, start: int, place: int) -> int:
        """The last place up to `place` that parts no character, or the first one after `start`."""
        before = self._mark_start(start, self._aligned(start, place))
        if before > start:
            return before
        while self._inside(place) or place == start:
            place += 1
        return place

    def _aligned(self, start: int, place: int) -> int:
        while place > start and self._inside(place):
            place -= 1
        return place

    def _mark_start(self, start: int, place: int) -> int:
        """Where the character begins whose marks (a Thai vowel, an accent) follow it at `place`; else `place`."""
        before = place
        for _ in range(_MAX_MARKS):
            if before <= start or not self._is_mark(before):
                return before if before > start else place
            before = self._aligned(start, before - 1)
        return place

    def _is_mark(self, place: int) -> bool:
        character = self.bytes[place : place + 4].decode(errors="ignore")[:1]
        return character != "" and unicodedata.category(character) in _MARKS

    def _inside(self, place: int) -> bool:
        """Whether the byte is one of UTF-8's that continue a character."""
        return place < len(self.bytes) and self.bytes[place] & 0xC0 == 0x80  # noqa: PLR2004 - as RFC 3629 has it


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
