"""One order from the finds of several searches."""

from collections.abc import Sequence
from dataclasses import replace

from gateway.retrieval import Found, Hit

# Cormack et al. 2009.
_K = 60


def fuse(founds: Sequence[Found], top_k: int) -> Found:
    """The best `top_k` hits by reciprocal rank fusion, each chunk once with its best score; ties as first found.

    The version is the oldest one searched.
    """
    if len(founds) == 1:
        return founds[0]
    best: dict[str, Hit] = {}
    ranks: dict[str, float] = {}
    for found in founds:
        for rank, hit in enumerate(found.hits, start=1):
            name = hit.chunk.name
            known = best.get(name, hit)
            best[name] = known if known.score >= hit.score else replace(known, score=hit.score)
            ranks[name] = ranks.get(name, 0.0) + 1 / (_K + rank)
    order = sorted(best, key=lambda name: -ranks[name])
    left_out = dict.fromkeys(each for found in founds for each in found.degradations)
    hits = tuple(best[name] for name in order[:top_k])
    return Found(hits, tuple(left_out), min(found.version for found in founds))


def added(found: Found, more: Found) -> Found:
    """The hits found, whose numbers are known already, and behind them those of `more` that are new."""
    known = {hit.chunk.name for hit in found.hits}
    new = tuple(hit for hit in more.hits if hit.chunk.name not in known)
    return replace(more, hits=(*found.hits, *new))
