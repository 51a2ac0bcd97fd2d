"""Weighs how well the quotes of some passages answer a question, by the words that they share with it."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from generator_svc.engine import Passage
from generator_svc.sentences import Quote, quotes

# Tuned on questions with known answers (bench/extractive.py). What stands around a quote counts, but less than itself.
_CONTEXT_WEIGHT = 0.4
_PRIOR_WEIGHT = 0.15
# What a sentence begins with is mostly what it is about: "A Pod is ..." rather than "... in a Pod".
_TOPIC_WEIGHT = 0.1
_TOPIC_TERMS = 4
_MAX_QUOTES = 3
# A further quote is given when it is nearly as good as the best and says something else.
_FURTHER_SHARE = 0.75
_MAX_OVERLAP = 0.6

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af"
_WORD = re.compile(rf"[{_CJK}]+|(?:(?![{_CJK}])[^\W_])+(?:['’][^\W_]+)?")
_IS_CJK = re.compile(rf"[{_CJK}]")

_STOP_WORDS = """
a about after all also am an and any are as at be because been before being between both but by can could did do does
doing during each for from had has have having he her here him his how i if in into is it its itself just kind many me
more most much must my name no nor not of off on once one only or other our out over own s same she should so some such
t than that the their them then there these they this those through to too type under until up upon very was we were
what when where which while who whom whose why will with would you your
的 了 是 在 和 与 或 及 有 什 么 什么 哪 哪些 哪里 哪个 谁 吗 呢 多 少 多少 几
怎 怎么 怎样 如何 为何 为什 个 这 那 被 于 以 为 从
"""
_STOPPED = frozenset(_STOP_WORDS.split())

# A light stem: the possessive, then Harman's S stemmer, then endings where enough of the word is left.
_ENDINGS = (
    (re.compile(r"['’]s$"), ""),
    (re.compile(r"(?<=\w\w)ies$"), "y"),
    (re.compile(r"(?<=\w\w[^sui])s$"), ""),
    (re.compile(r"(?<=\w{4})(?:ing|ed|ly)$"), ""),
    (re.compile(r"(?<=\w{4})e$"), ""),
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A quote, weighed: `support` is the share of the question's weight that it and its context cover, 0 to 1."""

    passage: Passage
    position: int
    quote: Quote
    terms: frozenset[str]
    support: float
    score: float


def terms(text: str) -> list[str]:
    """The words that carry meaning, as stems; of Chinese, Japanese and Korean the signs and their pairs."""
    found: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        if _IS_CJK.match(word):
            found += [*word, *(word[at : at + 2] for at in range(len(word) - 1))]
        else:
            found.append(word)
    return [_stem(word) for word in found if word not in _STOPPED]


def weigh(question: str, passages: Sequence[Passage]) -> list[Candidate]:
    """Every quote of the passages, best first; ties keep the order of the passages and of their text."""
    cut = [(passage, [(quote, terms(quote.text)) for quote in quotes(passage.text)]) for passage in passages]
    weights = _weights(terms(question), [frozenset(found) for _, pieces in cut for _, found in pieces])
    candidates: list[Candidate] = []
    for (passage, pieces), prior in zip(cut, _priors(passages), strict=True):
        title, before = terms(passage.title), list[str]()
        for position, (quote, found) in enumerate(pieces):
            covered = _share(weights, found)
            framed = _share(weights, [*found, *title, *terms(quote.heading)]) - covered
            led = _share(weights, [*found, *before]) - covered
            topic = _share(weights, found[:_TOPIC_TERMS])
            support = covered + _CONTEXT_WEIGHT * framed
            score = support + _CONTEXT_WEIGHT * led + _TOPIC_WEIGHT * topic + _PRIOR_WEIGHT * prior
            candidates.append(Candidate(passage, position, quote, frozenset(found), support, score))
            before = found
    return sorted(candidates, key=lambda candidate: -candidate.score)


def choose(ranked: Sequence[Candidate], min_support: float) -> list[Candidate]:
    """One to three of them that say different things, the best first; none where the support is too low."""
    if not ranked or ranked[0].support < min_support:
        return []
    best, *others = ranked
    chosen = [best]
    for candidate in others:
        if len(chosen) == _MAX_QUOTES or candidate.score < _FURTHER_SHARE * best.score:
            break
        if candidate.support >= min_support and all(_differ(candidate, other) for other in chosen):
            chosen.append(candidate)
    return [best, *sorted(chosen[1:], key=lambda candidate: (candidate.passage.number, candidate.position))]


def _weights(asked: Sequence[str], given: Sequence[frozenset[str]]) -> dict[str, float]:
    """The share of the question that each of its terms is: the rarer among the quotes, the more (BM25's idf)."""
    seen = Counter(term for found in given for term in found.intersection(asked))
    idf = {term: math.log(1 + (len(given) - seen[term] + 0.5) / (seen[term] + 0.5)) for term in asked}
    total = sum(idf.values())
    return {term: weight / total for term, weight in idf.items()}


def _share(weights: dict[str, float], found: Iterable[str]) -> float:
    return sum(weights[term] for term in weights.keys() & set(found))


def _priors(passages: Sequence[Passage]) -> list[float]:
    """Where the score of each passage lies between the worst and the best one, 0 to 1."""
    scores = [passage.score for passage in passages]
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return [(score - low) / (high - low) if high > low else 0.0 for score in scores]


def _differ(one: Candidate, other: Candidate) -> bool:
    smaller = min(len(one.terms), len(other.terms)) or 1
    return len(one.terms & other.terms) / smaller <= _MAX_OVERLAP


def _stem(word: str) -> str:
    for ending, rest in _ENDINGS:
        word = ending.sub(rest, word)
    return word
