"""Cuts an answer into sentences, while it is still being written."""

import re
from collections.abc import Iterator

from gateway.markers import ANY_MARKER, HALF_MARKER, in_fence

_QUOTE_ENDS = "\"'”’»)*_"
_STOPS = frozenset(".!?…。！？｡\n")
# A stop or the end of a line, with the markers behind it; what follows must look like a beginning. Each begins at the
# first of a row of its signs and keeps what it has: else a text of a thousand empty lines would take seconds.
_END = re.compile(
    rf"(?:(?<![.!?…])[.!?…]++[{_QUOTE_ENDS}]*+(?>(?:\s*{ANY_MARKER})++\s*|\s+)"
    rf"|(?<!\s)(?>\s*\n)(?>(?:\s*{ANY_MARKER})*)\s*+)(?=[^\sa-z])"
    rf"|(?<![。！？｡])[。！？｡]++[”’」』）》]*+(?>(?:\s*{ANY_MARKER})*)\s*+(?=\S)"
)
_ABBREVIATION = re.compile(
    r"(?:(?:^|[\s(\[“\"'])(?:[A-Z]|[A-Za-z](?:\.[A-Za-z])+|Mr|Mrs|Ms|Dr|Prof|Gen|Col|Capt|Lt|Sgt|Sen|Rep|Gov|St|Jr|Sr"
    r"|vs|No|Nos|Vol|Figs?|Eq|Sec|Ch|pp?|ca|cf|approx|est|Inc|Ltd|Corp|Co|Mt|Ft|bzw|Abs|Nr"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)|(?:^|\n)\s*\d{1,3})\.$"
)
_ABBREVIATION_CHARS = 16
# What goes on for longer without an end is cut.
_MAX_CHARS = 2000


class Sentences:
    """The sentences of one text, fed to it piece by piece; how it is cut makes no difference.

    A sentence reaches to where the next one begins: with its stop, the markers behind that and the spaces. A block of
    code is one sentence.
    """

    def __init__(self) -> None:
        self._pending = ""
        self._has_stop = False
        # No sentence ends before this place of what is pending.
        self._scanned = 0

    def feed(self, text: str) -> list[str]:
        """The sentences that the text completes; put together, all of them are the text."""
        self._pending += text
        self._has_stop = self._has_stop or not _STOPS.isdisjoint(text)
        found: list[str] = []
        while (self._has_stop or len(self._pending) >= 2 * _MAX_CHARS) and (end := self._first_end()):
            found.append(self._pending[:end])
            self._pending, self._scanned = self._pending[end:], 0
            self._has_stop = not _STOPS.isdisjoint(self._pending)
        return found

    def rest(self) -> str:
        """What is left once the text has ended: its last sentence, or nothing."""
        rest, self._pending, self._scanned, self._has_stop = self._pending, "", 0, False
        return rest

    def _first_end(self) -> int:
        """Where the first sentence ends; 0 where that cannot be told yet."""
        text = self._pending
        for end in _END.finditer(text, self._scanned):
            if end.start() > _MAX_CHARS:
                break
            if HALF_MARKER.match(text, end.end()):
                return 0
            if not (_is_abbreviated(text, end.start()) or in_fence(text, end.end())):
                return end.end()
            self._scanned = end.end()
        return _MAX_CHARS if len(text) >= 2 * _MAX_CHARS else 0


def sentences(text: str) -> Iterator[str]:
    """The sentences of a whole text."""
    cutting = Sentences()
    yield from cutting.feed(text)
    if rest := cutting.rest():
        yield rest


def _is_abbreviated(text: str, stop: int) -> bool:
    return bool(_ABBREVIATION.search(text[max(stop - _ABBREVIATION_CHARS, 0) : stop + 1]))
