"""Ties the claims of an answer to the places that support them, while the answer is still being written."""

import re
from collections.abc import Iterator, Mapping
from itertools import accumulate, pairwise

from gateway.answers import Citation
from gateway.markers import MARKER, MARKER_ENDS, MAX_MARKER_CHARS, in_code, numbers_of
from gateway.retrieval import Chunk, Hit, Span
from gateway.sentences import sentences
from gateway.terms import joins

# What stands between a marker and the next claim: the stop of the sentence before, a bullet, the number of an item.
_LEAD = re.compile(r"(?:[ \t\r\n\-*•#>|.,;:!?…)。，；：！？）]|^\d{1,3}[.)]\s)*", re.MULTILINE)
_TAIL = " \t\r\n|"
_STOPS = ".!?。！？"
# Longer texts between two markers are not one quotation.
_MAX_QUOTE_CHARS = 2000
_MAX_SENTENCES = 8


class Citer:
    """Finds the markers of one answer, fed to it piece by piece; how the text is cut makes no difference.

    `shown` are the hits by the numbers under which the prompt has them: markers with other numbers are plain text, and
    so are those in code. A claim is what stands between two markers: all of it where the source has it word for word,
    else as many of its sentences as it has, else the last one. Markers with nothing between them share the text.
    """

    def __init__(self, shown: Mapping[int, Hit]) -> None:
        self._shown = shown
        self.begun = False
        self._parts: list[str] = []
        self._scanned = 0
        self._marker_end = 0
        self._claim = (0, 0)

    def feed(self, text: str) -> list[Citation]:
        """The citations whose markers the text completes, in order."""
        self.begun = True
        self._parts.append(text)
        if not self._shown or MARKER_ENDS.isdisjoint(text):
            return []
        whole = "".join(self._parts)
        self._parts = [whole]
        begin = max(self._marker_end, self._scanned - MAX_MARKER_CHARS)
        self._scanned = len(whole)
        return [citation for marker in MARKER.finditer(whole, begin) for citation in self._cite(whole, marker)]

    def _cite(self, text: str, marker: re.Match[str]) -> Iterator[Citation]:
        known = [number for number in numbers_of(marker) if number in self._shown]
        if not known or in_code(text, marker.start()):
            return
        self._claim = _before(text, self._marker_end, marker.start()) or self._claim
        self._marker_end = marker.end()
        for number in known:
            yield _citation(number, self._shown[number], text, *self._claim)


def without_markers(text: str) -> str:
    """The text of an earlier answer, whose numbers would name other passages now."""
    return re.sub(rf"\s?{MARKER.pattern}", "", text)


def _before(text: str, start: int, end: int) -> tuple[int, int] | None:
    """The claim between two markers, or None where there is nothing but punctuation."""
    end = start + len(text[start:end].rstrip(_TAIL))
    lead = _LEAD.match(text, start, end)
    begin = lead.end() if lead else start
    return (begin, end) if begin < end else None


def _citation(number: int, hit: Hit, text: str, start: int, end: int) -> Citation:
    cut = _sentences(text, start, end)
    for begin, stop in _quotable(cut):
        if quoted := _quoted(text[begin:stop], hit):
            return _described(number, _bytes(text, begin, stop), *quoted)
    return _described(number, _bytes(text, *cut[-1]), hit.chunk, hit.chunk.source)


def _sentences(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Where the claim's last sentences begin and end, in order; the whole claim is the first to the last of them."""
    cut = [line for sentence in sentences(text[start:end]) for line in sentence.splitlines(keepends=True)]
    ends = list(accumulate(map(len, cut), initial=start))
    found = [span for span in (_before(text, *span) for span in pairwise(ends)) if span]
    return found[-_MAX_SENTENCES:] or [(start, end)]


def _quotable(cut: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What of a claim may be a quotation: all of it, its end, the longest first; then its other sentences."""
    end = cut[-1][1]
    yield from ((begin, end) for begin, _ in cut)
    yield from reversed(cut[:-1])


def _quoted(claim: str, hit: Hit) -> tuple[Chunk, Span, str] | None:
    """The chunk that has the claim word for word, where it stands in the document, and how it is written there.

    What goes over several neighbours is in the first of them.
    """
    for chunk in hit.chunks():
        if found := _find(claim, chunk.text):
            return chunk, _bytes(chunk.text, *found, base=chunk.source.start), chunk.text[slice(*found)]
    passage = hit.passage()
    if not hit.window or not (found := _find(claim, passage)):
        return None
    first, begin = _place(hit, found[0])
    last, end = _place(hit, found[1] - 1)
    source = Span(
        _bytes(first.text, begin, begin, first.source.start).start,
        _bytes(last.text, end, end + 1, last.source.start).end,
    )
    return first, source, passage[slice(*found)]


def _place(hit: Hit, at: int) -> tuple[Chunk, int]:
    """The chunk in which a place of the hit's passage lies, and where in it."""
    for chunk in hit.in_order():
        if at <= len(chunk.text):
            break
        at -= len(chunk.text) + 1
    return chunk, at


def _find(claim: str, source: str) -> tuple[int, int] | None:
    """Where the source has the claim word for word, however the two break lines and end the sentence."""
    exact = claim.rstrip(_STOPS)
    words = exact.split()
    if not words or len(claim) > _MAX_QUOTE_CHARS or " ".join(words) not in " ".join(source.split()):
        return None
    # Mostly it stands there as it is, and no expression has to be compiled.
    at = source.find(exact)
    if at >= 0 and not (joins(source, at) or joins(source, at + len(exact))):
        end = at + len(exact)
        return at, end + (source[end : end + 1] in tuple(_STOPS))
    anyhow = r"\s+".join(map(re.escape, words))
    found = re.search(rf"(?<![A-Za-z0-9_]){anyhow}(?![A-Za-z0-9_])[{_STOPS}]?", source)
    return found.span() if found else None


def _bytes(text: str, start: int, end: int, base: int = 0) -> Span:
    first = base + len(text[:start].encode())
    return Span(first, first + len(text[start:end].encode()))


def _described(number: int, answer: Span, chunk: Chunk, source: Span, quote: str = "") -> Citation:
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
