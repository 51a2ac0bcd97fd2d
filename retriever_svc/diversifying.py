"""Diversity: less of what a better hit has said already."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def diversify(scores: Sequence[float], vectors: NDArray[np.float32], diversity: float, limit: int) -> list[int]:
    """The places (from 0) of at most `limit` finds, chosen by maximal marginal relevance, best first.

    `scores` are the finds' own, `vectors` theirs too ([n, dimension]). Each choice has the greatest
    `(1 - diversity) * score - diversity * similarity to the nearest chosen`, with scores scaled to 0..1 and cosine
    similarity (Carbonell and Goldstein, SIGIR 1998).
    """
    relevance = np.array(scaled(scores))
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    nearest = np.zeros(len(scores))
    left = np.ones(len(scores), dtype=bool)
    chosen: list[int] = []
    while left.any() and len(chosen) < limit:
        gain = (1 - diversity) * relevance - diversity * nearest
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, units @ units[best])
    return chosen


def scaled(scores: Sequence[float]) -> list[float]:
    """The scores moved to 0..1 by the least and the greatest; equal ones are all 1."""
    if not scores:
        return []
    least, greatest = min(scores), max(scores)
    if least == greatest:
        return [1.0] * len(scores)
    return [(score - least) / (greatest - least) for score in scores]
