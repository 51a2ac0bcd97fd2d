"""Small real models: an encoder and a reranker that count words, and hold their breath when told to."""

import threading
from collections.abc import Sequence

import numpy as np

from embedder_svc.batching import BatchLimits
from embedder_svc.encoding import Card, EncoderCard, Length, Task, Vectors

DIMENSION = 16
MAX_TOKENS = 32

LIMITS = BatchLimits(
    max_batch_tokens=64,
    max_padding_tokens=64,
    max_batch_items=8,
    max_queue_tokens=1000,
    window_batches=4,
    max_interactive_run=2,
    retry_after_s=0.25,
)


class WordEncoder:
    """A token is a word, a vector the histogram of the words' letters; encodes only while `gate` is set."""

    def __init__(self, matryoshka_dimensions: tuple[int, ...] = (), name: str = "words") -> None:
        self.card = EncoderCard(name, "r1", MAX_TOKENS, "torch-cpu", DIMENSION, matryoshka_dimensions)
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[tuple[Task, list[str]]] = []
        self.failure: Exception | None = None

    @property
    def encoded(self) -> list[str]:
        return [text for _, texts in self.batches for text in texts]

    def lengths(self, texts: Sequence[str], task: Task) -> list[Length]:
        counts = [len(text.split()) for text in texts]
        return [Length(min(count, MAX_TOKENS), count > MAX_TOKENS) for count in counts]

    def char_ends(self, texts: Sequence[str]) -> list[list[int]]:
        return [[place + 1 for place, _ in enumerate(text)] for text in texts]

    def encode(self, texts: Sequence[str], task: Task) -> Vectors:
        self.batches.append((task, list(texts)))
        assert self.gate.wait(30)
        if self.failure:
            raise self.failure
        rows = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for letter in text.encode():
                row[letter % DIMENSION] += 1
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


class OverlapReranker:
    """Scores a text by the share of its words that the query has."""

    def __init__(self) -> None:
        self.card = Card("overlap", "r1", MAX_TOKENS, "torch-cpu")

    def lengths(self, query: str, texts: Sequence[str]) -> list[Length]:
        return [Length(len(query.split()) + len(text.split()), False) for text in texts]

    def score(self, pairs: Sequence[tuple[str, str]]) -> Vectors:
        return np.asarray([self._score(query, text) for query, text in pairs], dtype=np.float32)

    def _score(self, query: str, text: str) -> float:
        words = text.split()
        return sum(word in query.split() for word in words) / len(words)
