"""What can be said of a quote as an answer to a question, in numbers."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from generator_svc.engine import Passage
from generator_svc.question import Question
from generator_svc.sentences import Quote, quotes
from generator_svc.terms import root, terms

# What a sentence begins with is mostly what it is about: "A Pod is ..." rather than "... in a Pod".
_TOPIC_TERMS = 4
# Words that say what sort of thing is asked for, or that it is so, more than which: a match on them says little.
_FAINT = frozenset(
    terms(
        "able allow amount area become became called city considered country different event example found form given"
        " good great group happen high include kind known large long made main make name new number occur part people"
        " percent percentage place portion purpose reason result several sort state taken term time type used way"
        " word world year"
    )
)
_FAINT_SHARE = 0.3


class Features(NamedTuple):
    """Numbers of 0 to 1, or the weights of such numbers.

    Shares are of the question's terms, weighed by their rarity among the quotes; `framed`, `led` and `above` are what
    the quote's surroundings add to its own share.
    """

    covered: float
    """The share that the quote has."""
    peaked: float
    """The sum of the squared shares: high where one rare term makes the match."""
    rooted: float
    """The share by roots rather than stems, words that only say what sort of thing is asked for counting less."""
    topic: float
    """The share that its first words have."""
    framed: float
    """What the passage's title and the heading add."""
    led: float
    """What the quote before it adds."""
    above: float
    """What the title and all of the passage before it add, by roots."""
    headed: float
    """Whether it has the noun that the question asks for."""
    kind: float
    """Whether it names something of the kind asked for that the question does not name."""
    lacking: float
    """The share of the question's numbers that it lacks."""
    prior: float
    """Where its passage's score lies between those of the worst and the best one."""
    similarity: float = 0.0
    """The cosine of the encoder's vectors, at least 0; 0 where there is no encoder."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A quote at its place in a passage, its terms, and what can be said of it."""

    passage: Passage
    position: int
    quote: Quote
    terms: frozenset[str]
    features: Features

    @property
    def text_in_context(self) -> str:
        """What an encoder compares: the quote under its passage's title."""
        return f"{self.passage.title}: {self.quote.text}" if self.passage.title else self.quote.text


@dataclass(frozen=True, slots=True)
class _Piece:
    quote: Quote
    terms: tuple[str, ...]


def measure(question: Question, passages: Sequence[Passage]) -> list[Measured]:
    """Every quote of the passages, in their order and that of their text."""
    cut = [[_Piece(quote, tuple(terms(quote.text))) for quote in quotes(passage.text)] for passage in passages]
    scale = _Scale.of(question, [frozenset(piece.terms) for pieces in cut for piece in pieces])
    found: list[Measured] = []
    for passage, pieces, prior in zip(passages, cut, _priors(passages), strict=True):
        title = terms(passage.title)
        above, before = set(map(root, title)), tuple[str, ...]()
        for position, piece in enumerate(pieces):
            around = [*title, *terms(piece.quote.heading)]
            features = _features(question, scale, piece, around, before, above)._replace(prior=prior)
            found.append(Measured(passage, position, piece.quote, frozenset(piece.terms), features))
            before = piece.terms
            above.update(map(root, before))
    return found


def _features(
    question: Question, scale: "_Scale", piece: _Piece, around: list[str], before: Sequence[str], above: set[str]
) -> Features:
    own, roots = frozenset(piece.terms), frozenset(map(root, piece.terms))
    covered, rooted = scale.share(own), scale.root_share(roots)
    return Features(
        covered=covered,
        peaked=scale.peak(own),
        rooted=rooted,
        topic=scale.share(frozenset(piece.terms[:_TOPIC_TERMS])),
        framed=scale.share(own.union(around)) - covered,
        led=scale.share(own.union(before)) - covered,
        above=scale.root_share(roots | above) - rooted,
        headed=float(not question.head.isdisjoint(own)),
        kind=float(question.names_kind(piece.quote.text)),
        lacking=question.lacking_numbers(piece.quote.text),
        prior=0.0,
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    """The share of the question that each of its terms is, and each root of them; both add up to 1."""

    terms: Mapping[str, float]
    roots: Mapping[str, float]

    @classmethod
    def of(cls, question: Question, given: Sequence[frozenset[str]]) -> "_Scale":
        """The rarer a term is among the quotes, the more (BM25's idf)."""
        seen = Counter(term for found in given for term in found.intersection(question.terms))
        idf = {
            term: math.log(1 + (len(given) - seen[term] + 0.5) / (seen[term] + 0.5))
            for term in dict.fromkeys(question.terms)
        }
        roots: dict[str, float] = {}
        for term, weight in idf.items():
            faint = weight * (_FAINT_SHARE if term in _FAINT else 1.0)
            roots[root(term)] = max(roots.get(root(term), 0.0), faint)
        return cls(_normal(idf), _normal(roots))

    def share(self, found: Collection[str]) -> float:
        return _total(self.terms, found)

    def root_share(self, found: Collection[str]) -> float:
        return _total(self.roots, found)

    def peak(self, found: Collection[str]) -> float:
        return sum(weight**2 for term, weight in self.terms.items() if term in found)


def _normal(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {term: weight / total for term, weight in weights.items()}


def _total(weights: Mapping[str, float], found: Collection[str]) -> float:
    return sum(weight for term, weight in weights.items() if term in found)


def _priors(passages: Iterable[Passage]) -> list[float]:
    """Where the score of each passage lies between the worst and the best one, 0 to 1."""
    scores = [passage.score for passage in passages]
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return [(score - low) / (high - low) if high > low else 0.0 for score in scores]
