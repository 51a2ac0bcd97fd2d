"""A process that encodes without a server: plain sentence-transformers, or the service's own encoder called directly.

`python -m bench.embed_worker SUBJECT` answers each line of its input, a JSON object, by one of its output: `encode`
with the texts' vectors (float32, base64) and the seconds they took, `ask` with the seconds of each question and of all.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from embedder_svc import weights
from embedder_svc.encoding import ModelOptions, Task, Vectors
from embedder_svc.loading import load_encoder

BATCH_TOKENS, PADDING_TOKENS = 2048, 128
"""As embedder_svc cuts its batches on a CPU."""


class Model(Protocol):
    """What is called directly."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """The vectors of the texts, in order."""

    def ask(self, questions: Sequence[str], at_once: int) -> list[float]:
        """The seconds each question took, so many asked at once."""


class SentenceTransformers:
    """A SentenceTransformer as its documentation calls it; callers who come at once take turns."""

    def __init__(self) -> None:
        from sentence_transformers import SentenceTransformer

        self._model: Any = SentenceTransformer(str(weights.locate(weights.BUNDLED_MODEL)), device="cpu")
        self._turn = threading.Lock()

    def encode(self, texts: Sequence[str]) -> Vectors:
        return np.asarray(self._model.encode(list(texts), show_progress_bar=False), dtype=np.float32)

    def ask(self, questions: Sequence[str], at_once: int) -> list[float]:
        with ThreadPoolExecutor(at_once) as callers:
            return list(callers.map(self._query, questions))

    def _query(self, question: str) -> float:
        began_s = time.perf_counter()
        with self._turn:
            self._model.encode(question, show_progress_bar=False)
        return time.perf_counter() - began_s


class BareEngine:
    """The service's encoder, given all at once: sorted by length and cut into batches as the service does."""

    def __init__(self) -> None:
        self._encoder = load_encoder(ModelOptions(weights.BUNDLED_MODEL, weights.BUNDLED_MODEL))

    def encode(self, texts: Sequence[str]) -> Vectors:
        return self._encode(texts, Task.DOCUMENT)

    def ask(self, questions: Sequence[str], at_once: int) -> list[float]:
        seconds: list[float] = []
        for start in range(0, len(questions), at_once):
            began_s = time.perf_counter()
            together = questions[start : start + at_once]
            self._encode(together, Task.QUERY)
            seconds += [time.perf_counter() - began_s] * len(together)
        return seconds

    def _encode(self, texts: Sequence[str], task: Task) -> Vectors:
        vectors = np.empty((len(texts), self._encoder.card.dimension), dtype=np.float32)
        for batch in batches([length.tokens for length in self._encoder.lengths(texts, task)]):
            vectors[batch] = self._encoder.encode([texts[place] for place in batch], task)
        return vectors


def batches(tokens: Sequence[int]) -> Iterator[list[int]]:
    """The places of texts of so many tokens, shortest first, in batches that are bounded as their padding is."""
    batch: list[int] = []
    real = 0
    for place in sorted(range(len(tokens)), key=tokens.__getitem__):
        real += tokens[place]
        padded = tokens[place] * (len(batch) + 1)
        if batch and (padded > BATCH_TOKENS or padded - real > PADDING_TOKENS):
            yield batch
            batch, real = [], tokens[place]
        batch.append(place)
    if batch:
        yield batch


SUBJECTS: dict[str, Callable[[], Model]] = {"sentence-transformers": SentenceTransformers, "bare-engine": BareEngine}


def main() -> None:
    """Answer until the input ends."""
    model = SUBJECTS[sys.argv[1]]()
    for line in sys.stdin:
        print(json.dumps(_answer(model, json.loads(line))), flush=True)


def _answer(model: Model, wanted: dict[str, Any]) -> dict[str, Any]:
    began_s = time.perf_counter()
    if "encode" in wanted:
        vectors = model.encode(wanted["encode"])
        wall_s = time.perf_counter() - began_s
        return {"wall_s": wall_s, "vectors": base64.b64encode(vectors.tobytes()).decode()}
    seconds = model.ask(wanted["ask"], wanted["at_once"])
    return {"wall_s": time.perf_counter() - began_s, "seconds": seconds}


if __name__ == "__main__":
    main()
