"""What a sentence of an answer claims, and how far a passage says the same."""

import math
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from gateway.markers import MARKER, in_code, numbers_of
from gateway.retrieval import Hit
from gateway.sentences import sentences
from gateway.terms import folded, joins, root, terms

# Bullets, the marks of a table, the number of a list's item.
_LEAD = re.compile(r"(?:[\s\-*•>|]|\d{1,3}[.)]\s)*")
_TAIL = " \t\r\n|"
_HEADING = re.compile(r"\s*#{1,6}\s")
_STOPS = " .!?…。！？｡,;:*_\"'“”"
_NAME = re.compile(r"(?<=[^\s.!?:] )[A-Z]\w+|\b[A-Z]{2,}\w*")
_NOT = re.compile(r"\b(?:not|no|never|none|nor|neither|without|cannot)\b|n['’]t\b|[不没無无未]")

# What a word counts of which another form is there, and one that stands elsewhere in the passage.
_OTHER_FORM = 0.8
_ELSEWHERE = 0.6
# What is left of a score where all of the names are missing, and where one side says no and the other does not.
_NAMELESS = 0.4
_OPPOSED = 0.5
_BEST_PARAPHRASE = 0.95


class Claim:
    """What a sentence says, from `start` to `end` in characters: without its bullet and the markers behind it."""

    def __init__(self, sentence: str) -> None:
        markers = [marker for marker in MARKER.finditer(sentence) if not in_code(sentence, marker.start())]
        self.cited = tuple(dict.fromkeys(number for marker in markers for number in numbers_of(marker)))
        """The numbers of its markers."""
        self.end = len(sentence.rstrip(_TAIL))
        for marker in reversed(markers):
            if marker.end() == self.end:
                self.end = len(sentence[: marker.start()].rstrip(_TAIL))
        lead = _LEAD.match(sentence, 0, self.end)
        self.start = lead.end() if lead else 0
        self._said = MARKER.sub("", sentence[self.start : self.end]) if markers else sentence[self.start : self.end]
        self.is_heading = bool(_HEADING.match(sentence))

    @cached_property
    def text(self) -> str:
        """Its words alone, folded."""
        return folded(self._said).strip(_STOPS)

    @cached_property
    def terms(self) -> frozenset[str]:
        """What can be looked for; nothing in a heading."""
        return frozenset(terms(self.text))

    @cached_property
    def numbers(self) -> frozenset[str]:
        return frozenset(term for term in self.terms if term[0].isdigit())

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(terms(folded(" ".join(_NAME.findall(self._said)))))

    @cached_property
    def denies(self) -> bool:
        return bool(_NOT.search(self.text))


@dataclass(frozen=True, slots=True)
class _Index:
    """Which windows of a passage have a word: each sentence with the one behind it is a window.

    What the passage is about stands in all of them.
    """

    sentences: Sequence[frozenset[str]]
    denials: Sequence[bool]
    terms: Mapping[str, Collection[int]]
    roots: Mapping[str, Collection[int]]


class Evidence:
    """A text that the model was shown, and what it is about; taken apart no further than is asked for."""

    def __init__(self, text: str, about: str = "") -> None:
        self._text = text
        self._about = about

    @classmethod
    def of(cls, hit: Hit) -> "Evidence":
        """A hit as the model was shown it."""
        return cls(hit.passage(), " ".join((hit.chunk.title, *hit.chunk.heading_path)))

    def support(self, claim: Claim) -> float:
        """How far it says what the claim says: 1 where word for word.

        Else the share of the claim's words that two neighbouring sentences have, rare words counting more; less where
        numbers, names or a negation differ.
        """
        if self._says(claim.text):
            return 1.0
        score, denies = self._covered(claim)
        if denies is not claim.denies:
            score *= _OPPOSED
        if claim.numbers:
            score *= self._share(claim.numbers)
        if claim.names:
            score *= _NAMELESS + (1 - _NAMELESS) * self._share(claim.names)
        return _BEST_PARAPHRASE * score

    def _says(self, claim: str) -> bool:
        at = self._folded.find(claim)
        while at >= 0:
            if not (joins(self._folded, at) or joins(self._folded, at + len(claim))):
                return True
            at = self._folded.find(claim, at + 1)
        return False

    def _covered(self, claim: Claim) -> tuple[float, bool]:
        """The best share of the claim that a window has, and whether the sentence that has more of it says no."""
        index = self._index
        count = len(index.denials)
        shares, everywhere, total = [0.0] * count, 0.0, 0.0
        for term in claim.terms:
            exact, alike = index.terms.get(term, ()), index.roots.get(root(term), ())
            weight = math.log(1 + (count + 0.5) / (max(len(exact), 1) + 0.5))
            total += weight
            everywhere += _ELSEWHERE * weight if alike else 0.0
            for window in alike:
                shares[window] += ((1.0 if window in exact else _OTHER_FORM) - _ELSEWHERE) * weight
        best = max(range(count), key=shares.__getitem__)
        nearest = max(range(best, min(best + 2, count)), key=lambda at: len(claim.terms & index.sentences[at]))
        return (everywhere + shares[best]) / total, index.denials[nearest]

    def _share(self, wanted: frozenset[str]) -> float:
        return sum(term in self._index.terms for term in wanted) / len(wanted)

    @cached_property
    def _folded(self) -> str:
        return folded(self._text)

    @cached_property
    def _index(self) -> _Index:
        cut = [folded(sentence) for sentence in sentences(self._text)] or [""]
        words = [frozenset(terms(sentence)) for sentence in cut]
        found: dict[str, set[int]] = defaultdict(set)
        for place, own in enumerate(words):
            for term in own:
                found[term].update((max(place - 1, 0), place))
        for term in terms(folded(self._about)):
            found[term].update(range(len(cut)))
        roots: dict[str, set[int]] = defaultdict(set)
        for term, windows in found.items():
            roots[root(term)] |= windows
        return _Index(words, [bool(_NOT.search(sentence)) for sentence in cut], found, roots)
