"""Ties the claims of an answer to the places that support them, while the answer is still being written."""

import re
from collections.abc import Iterator, Sequence

from gateway.answers import Citation
from gateway.retrieval import Chunk, Hit, Span

# `[1]` and, as some models write, `[1, 2]`. Bounded, so that only the end of the text can hold half a marker.
MARKER = re.compile(r"\[(\d{1,4}(?:\s?,\s?\d{1,4}){0,7})\]")
_MAX_MARKER_CHARS = 64
_SENTENCE_END = re.compile(r"[.!?][\"'”’)]*\s+|[。！？][”’）]*|\n+")
# What stands between a marker and the next claim: the stop of the sentence before, a bullet.
_LEADING = " \t\r\n-*•#>.,;:!?…)。，；：！？）"
_STOPS = ".!?。！？"
# Longer texts between two markers are not one quotation.
_MAX_QUOTE_CHARS = 2000


class Citer:
    """Finds the markers of one answer, fed to it piece by piece; how the text is cut makes no difference.

    A claim is what stands between two markers: all of it where the source has it word for word, else its
    last sentence. Markers with nothing between them share a claim. Unknown numbers are plain text.
    """

    def __init__(self, hits: Sequence[Hit]) -> None:
        self._hits = dict(enumerate(hits, start=1))
        self.begun = False
        self._parts: list[str] = []
        self._scanned = 0
        self._marker_end = 0
        self._claim = (0, 0)

    def feed(self, text: str) -> list[Citation]:
        """The citations whose markers the text completes, in order."""
        self.begun = True
        self._parts.append(text)
        if "]" not in text:
            return []
        whole = "".join(self._parts)
        self._parts = [whole]
        begin = max(self._marker_end, self._scanned - _MAX_MARKER_CHARS)
        self._scanned = len(whole)
        return [citation for marker in MARKER.finditer(whole, begin) for citation in self._cite(whole, marker)]

    def _cite(self, text: str, marker: re.Match[str]) -> Iterator[Citation]:
        numbers = [int(number) for number in marker[1].split(",")]
        known = [number for number in dict.fromkeys(numbers) if number in self._hits]
        if not known:
            return
        self._claim = _before(text, self._marker_end, marker.start()) or self._claim
        self._marker_end = marker.end()
        for number in known:
            yield _citation(number, self._hits[number], text, *self._claim)


def without_markers(text: str) -> str:
    """The text of an earlier answer, whose numbers would name other passages now."""
    return re.sub(rf"\s?{MARKER.pattern}", "", text)


def _before(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The claim between two markers, or None where there is nothing but punctuation."""
    between = text[start:end].rstrip()
    claim = between.lstrip(_LEADING)
    return (start + len(between) - len(claim), start + len(between)) if claim else None


def _citation(number: int, hit: Hit, text: str, start: int, end: int) -> Citation:
    sentence = start + _last_sentence(text[start:end])
    for begin in dict.fromkeys((start, sentence)):
        for chunk in hit.chunks():
            if found := _quoted(text[begin:end], chunk.text):
                source = _bytes(chunk.text, *found.span(), base=chunk.source.start)
                return _described(number, chunk, _bytes(text, begin, end), source, quote=found[0])
    return _described(number, hit.chunk, _bytes(text, sentence, end), hit.chunk.source)


def _last_sentence(claim: str) -> int:
    """Where the last sentence of the claim begins."""
    return max((found.end() for found in _SENTENCE_END.finditer(claim) if found.end() < len(claim)), default=0)


def _quoted(claim: str, source: str) -> re.Match[str] | None:
    """Where the source has the claim word for word, however the two break lines and end the sentence."""
    words = claim.rstrip(_STOPS).split()
    if not words or len(claim) > _MAX_QUOTE_CHARS:
        return None
    exact = r"\s+".join(map(re.escape, words))
    return re.search(rf"(?<![A-Za-z0-9_]){exact}(?![A-Za-z0-9_])[{_STOPS}]?", source)


def _bytes(text: str, start: int, end: int, base: int = 0) -> Span:
    first = base + len(text[:start].encode())
    return Span(first, first + len(text[start:end].encode()))


def _described(number: int, chunk: Chunk, answer: Span, source: Span, quote: str = "") -> Citation:
    return Citation(
        number=number,
        answer=answer,
        chunk=chunk.name,
        document=chunk.document,
        source=source,
        title=chunk.title,
        uri=chunk.uri,
        page=chunk.page,
        heading_path=chunk.heading_path,
        quote=quote,
        verbatim=bool(quote),
    )
