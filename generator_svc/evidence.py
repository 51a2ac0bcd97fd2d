"""Weighs how well the quotes of some passages answer a question, and chooses those to give."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from generator_svc.engine import Passage
from generator_svc.features import Features, Measured, measure
from generator_svc.question import Question
from generator_svc.sentences import Quote
from generator_svc.terms import is_dense
from generator_svc.weights import DENSE, ENCODED, LEXICAL, Weights

_MAX_QUOTES = 3
# A further quote is given when it is nearly as good as the best (in the exponent of the order's softmax) and says
# something else.
_MAX_BEHIND = 0.7
_MAX_OVERLAP = 0.6


class Encoder(Protocol):
    """Compares texts by their meaning."""

    async def similarities(self, question: str, texts: Sequence[str]) -> list[float]:
        """The cosine of each text with the question, in order; raises MeshError where it cannot be had in time."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A quote, weighed: the order is by `score`; `support` is the probability that it answers the question."""

    measured: Measured
    score: float
    support: float

    @property
    def passage(self) -> Passage:
        """Where it is from."""
        return self.measured.passage

    @property
    def quote(self) -> Quote:
        """What it says."""
        return self.measured.quote


def weigh(question: str, passages: Sequence[Passage]) -> list[Candidate]:
    """Every quote of the passages, best first by its words; ties keep the order of the passages and of their text."""
    read = Question.read(question)
    if not read.terms:
        return []
    weights = DENSE if is_dense(question) else LEXICAL
    return _ranked(measure(read, passages), weights)


def weigh_again(candidates: Sequence[Candidate], similarities: Sequence[float]) -> list[Candidate]:
    """The candidates, best first by their words and by their similarity to the question; one similarity each."""
    return _ranked(
        [
            replace(old, features=old.features._replace(similarity=max(similarity, 0.0)))
            for old, similarity in zip((candidate.measured for candidate in candidates), similarities, strict=True)
        ],
        ENCODED,
    )


def choose(ranked: Sequence[Candidate], min_support: float) -> list[Candidate]:
    """One to three of them that say different things, the best first; none where the support is too low."""
    if not ranked or ranked[0].support < min_support:
        return []
    best, *others = ranked
    chosen = [best]
    for candidate in others:
        if len(chosen) == _MAX_QUOTES or candidate.score < best.score - _MAX_BEHIND:
            break
        if candidate.support >= min_support and all(_differ(candidate, other) for other in chosen):
            chosen.append(candidate)
    return [best, *sorted(chosen[1:], key=_place)]


def _ranked(measured: Sequence[Measured], weights: Weights) -> list[Candidate]:
    candidates = [
        Candidate(each, _sum(weights.order, each.features), _supported(weights, each.features)) for each in measured
    ]
    return sorted(candidates, key=lambda candidate: -candidate.score)


def _sum(weights: Features, features: Features) -> float:
    return sum(weight * feature for weight, feature in zip(weights, features, strict=True))


def _supported(weights: Weights, features: Features) -> float:
    return 1 / (1 + math.exp(-weights.bias - _sum(weights.support, features)))


def _place(candidate: Candidate) -> tuple[int, int]:
    return candidate.passage.number, candidate.measured.position


def _differ(one: Candidate, other: Candidate) -> bool:
    mine, theirs = one.measured.terms, other.measured.terms
    return len(mine & theirs) / (min(len(mine), len(theirs)) or 1) <= _MAX_OVERLAP
