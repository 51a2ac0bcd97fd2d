"""Makes the chunks and queries of the search benchmark, the same for the same seed; a size is the head of a bigger one.

Vectors lie around centres of topics of unequal size, spread along few directions and a little along all: an intrinsic
dimension near that of sentence vectors, which noise alone lacks and indexes live by. Words come by Zipf's law, those of
a topic more often. A query is a chunk's vector, moved, and some of the chunk's words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

DIMENSION, BLOCK, CHUNKS_OF_A_DOCUMENT = 384, 10_000, 20
TEAM = "team-3"
"""What a filtered search asks for: one chunk in ten is of that team."""
_SEED, _WORDS, _TEAMS = 4, 60, 10
_TOPICS, _LATENT, _SPREAD, _NOISE, _MOVED = 2000, 40, 0.9, 0.35, 0.6
_VOCABULARY, _TOPIC_WORDS, _TOPIC_SHARE = 50_000, 300, 0.2
_QUERY_WORDS = 6

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Block:
    """Chunks of consecutive numbers: vectors [n, DIMENSION] of length 1, texts, and metadata of each."""

    first: int
    vectors: Vectors
    texts: list[str]
    teams: list[str]
    years: list[int]


@dataclass(frozen=True, slots=True)
class Query:
    """A vector [DIMENSION] of length 1 and a few words."""

    vector: Vectors
    text: str


def blocks(size: int) -> Iterator[Block]:
    """The first `size` chunks, a multiple of BLOCK."""
    for number in range(size // BLOCK):
        yield block(number)


def block(number: int) -> Block:
    """The chunks from `number * BLOCK` on."""
    draw = np.random.default_rng((_SEED, number))
    topics = _topics(draw, BLOCK)
    vectors = _around(topics, draw)
    words = np.array(_vocabulary(), dtype=object)[_words(topics, draw)]
    return Block(
        first=number * BLOCK,
        vectors=vectors,
        texts=[" ".join(row) for row in words],
        teams=[f"team-{team}" for team in draw.integers(_TEAMS, size=BLOCK)],
        years=draw.integers(2000, 2026, size=BLOCK).tolist(),
    )


def queries(size: int, count: int) -> list[Query]:
    """So many queries for chunks among the first `size`."""
    draw = np.random.default_rng((_SEED, size, count))
    made: list[Query] = []
    for number in draw.integers(size // BLOCK, size=count // 50 + 1).tolist():
        source = block(number)
        for place in draw.choice(BLOCK, 50, replace=False):
            direction = draw.standard_normal(_LATENT + 1, dtype=np.float32)
            moved = source.vectors[place] + _MOVED * _unit(direction[1:] @ _latent())
            words = source.texts[place].split()
            chosen = np.sort(draw.choice(len(words), _QUERY_WORDS, replace=False))
            made.append(Query(_unit(moved), " ".join(words[word] for word in chosen)))
    return made[:count]


def _topics(draw: np.random.Generator, count: int) -> NDArray[np.int64]:
    weights = 1 / (np.arange(_TOPICS) + 20)
    return draw.choice(_TOPICS, count, p=weights / weights.sum())


def _around(topics: NDArray[np.int64], draw: np.random.Generator) -> Vectors:
    """Vectors of the topics."""
    within = _centres()[topics] + _SPREAD * draw.standard_normal((len(topics), _LATENT), dtype=np.float32)
    noise = draw.standard_normal((len(topics), DIMENSION), dtype=np.float32)
    return _unit(_unit(within @ _latent()) + _NOISE / DIMENSION**0.5 * noise)


@cache
def _centres() -> Vectors:
    return np.random.default_rng((_SEED, 10**9)).standard_normal((_TOPICS, _LATENT), dtype=np.float32)


@cache
def _latent() -> Vectors:
    """Directions [_LATENT, DIMENSION], the later ones shorter, as the components of sentence vectors are."""
    draw = np.random.default_rng((_SEED, 10**9 + 1))
    lengths = (np.arange(_LATENT, dtype=np.float32) + 2) ** -0.5
    return _unit(draw.standard_normal((_LATENT, DIMENSION), dtype=np.float32)) * lengths[:, None]


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float32)


@cache
def _vocabulary() -> list[str]:
    draw = np.random.default_rng((_SEED, 10**9 + 2))
    syllables = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
    made: dict[str, None] = {}
    while len(made) < _VOCABULARY:
        made["".join(draw.choice(syllables, draw.integers(2, 5)))] = None
    return list(made)


@cache
def _cumulated() -> NDArray[np.float64]:
    weights = np.cumsum(1 / (np.arange(_VOCABULARY) + 2.7))
    return np.asarray(weights / weights[-1])


def _words(topics: NDArray[np.int64], draw: np.random.Generator) -> NDArray[np.int64]:
    """Numbers of words [n, _WORDS]; _TOPIC_SHARE of them of the topic's own."""
    words = np.searchsorted(_cumulated(), draw.random((len(topics), _WORDS)))
    own = (topics[:, None] * 7919 + draw.integers(_TOPIC_WORDS, size=words.shape) ** 2) % _VOCABULARY
    return np.where(draw.random(words.shape) < _TOPIC_SHARE, own, words)
