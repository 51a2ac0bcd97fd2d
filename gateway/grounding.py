"""Grades an answer sentence by sentence, as it is written, by how well the passages shown support it."""

from collections.abc import Mapping, Sequence

from gateway.answers import Grounding
from gateway.evidence import Claim, Evidence
from gateway.retrieval import Hit, Span
from gateway.sentences import Sentences


class Grounder:
    """Grades the sentences of one answer, fed to it piece by piece; how it is cut makes no difference.

    A sentence is held against the passages that it cites, else against all that were shown and what tools have `told`,
    which has no numbers. A score below `min_score` is no support. Headings, and what has no words to look for, have no
    grade; nor has an answer that was shown no passages.
    """

    def __init__(self, shown: Mapping[int, Hit], min_score: float, told: Sequence[str] = ()) -> None:
        self._shown = {number: Evidence.of(hit) for number, hit in shown.items()}
        self._told = [Evidence(text) for text in told]
        self._min_score = min_score
        self._sentences = Sentences()
        self._end = 0

    def feed(self, text: str) -> list[Grounding]:
        """The grades of the sentences that the text completes."""
        if not self._shown:
            return []
        return [grade for sentence in self._sentences.feed(text) for grade in self._grade(sentence)]

    def rest(self) -> list[Grounding]:
        """The grade of the last sentence, once the text has ended."""
        return self._grade(self._sentences.rest())

    def _grade(self, sentence: str) -> list[Grounding]:
        begin, self._end = self._end, self._end + len(sentence.encode())
        claim = Claim(sentence)
        if claim.is_heading or not claim.terms or not self._shown:
            return []
        first = begin + len(sentence[: claim.start].encode())
        span = Span(first, first + len(sentence[claim.start : claim.end].encode()))
        cited = [number for number in claim.cited if number in self._shown]
        scores = {number: self._shown[number].support(claim) for number in cited or self._shown}
        best = max(*scores.values(), *(told.support(claim) for told in self._told if not cited), 0.0)
        support = [number for number, score in scores.items() if score >= max(self._min_score, best)]
        return [Grounding(span, round(best, 3), tuple(support))]
