"""Which fusion ranks best: nDCG@10 over the better half, of ways to make one order of the two halves that were served.

Each half's candidates are searched once, with their scores, and fused here by retriever_svc's own code or by another
way. Folders are arguments, QUERIES=N asks so many of each set only, as for `make eval-retrieval`.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.eval_retrieval import difference, measured, sample
from bench.harness import Row, write
from bench.labelled import LabelledSet, read_set
from bench.retrieval import Found, open_served
from ragmesh.retriever.v1 import retriever_pb2
from retriever_svc.diversifying import scaled
from retriever_svc.fusion import ReciprocalRank, Weighted, fuse
from retriever_svc.index import Place, Scored

_WEIGHTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_CANDIDATES, _EVERY_HIT = 100, 200

Half = Sequence[Scored]
Fuse = Callable[[Half, Half], list[Place]]


def ways() -> dict[str, Fuse]:
    """The fusions compared, by name; `cosine` is retriever_svc's own."""
    found: dict[str, Fuse] = {"rrf 60": _ours(ReciprocalRank(60)), "rrf 1": _ours(ReciprocalRank(1))}
    for weight in _WEIGHTS:
        found[f"cosine {weight}"] = _ours(Weighted(weight))
        found[f"min-max {weight}"] = _summed(weight, scaled)
        found[f"z-score {weight}"] = _summed(weight, _standardized)
    return found


def _ours(method: ReciprocalRank | Weighted) -> Fuse:
    return lambda dense, sparse: [found.place for found in fuse(method, dense, sparse)]


def _summed(weight: float, scale: Callable[[Sequence[float]], Sequence[float]]) -> Fuse:
    def fused(dense: Half, sparse: Half) -> list[Place]:
        totals: dict[Place, float] = defaultdict(float)
        for half, share in ((dense, weight), (sparse, 1.0 - weight)):
            for found, score in zip(half, scale([found.score for found in half]), strict=True):
                totals[found.place] += share * score
        return sorted(totals, key=lambda place: -totals[place])

    return fused


def _standardized(scores: Sequence[float]) -> list[float]:
    """In standard deviations above the least."""
    deviation = statistics.pstdev(scores) if scores else 0.0
    return [(score - min(scores)) / deviation if deviation else 0.0 for score in scores]


def halves(found: Found) -> tuple[Half, Half]:
    """The dense and the sparse half, best first, as the hits' explanations have them."""
    dense, sparse = list[tuple[int, Scored]](), list[tuple[int, Scored]]()
    for hit in found.hits:
        told = hit.explanation
        if told.dense_rank:
            dense.append((told.dense_rank, Scored(_place(hit), told.dense_score)))
        if told.sparse_rank:
            sparse.append((told.sparse_rank, Scored(_place(hit), told.sparse_score)))
    return [scored for _, scored in sorted(dense)], [scored for _, scored in sorted(sparse)]


def _place(hit: retriever_pb2.Hit) -> Place:
    """The chunk's place, its document by the id that the set has for it."""
    return Place(hit.chunk.uri, hit.chunk.ordinal)


def compare(labelled: LabelledSet, found: Mapping[str, Found]) -> list[Row]:
    """For each way nDCG@10, and with its 95% interval what it gains over the better half."""
    parted = {query: halves(hits) for query, hits in found.items()}

    def ndcg(order: Fuse) -> list[float]:
        places = {query: order(*both) for query, both in parted.items()}
        ranked = {query: list(dict.fromkeys(place.document for place in best)) for query, best in places.items()}
        return measured(labelled.qrels, ranked)["nDCG@10"]

    alone = ndcg(lambda dense, _: [one.place for one in dense]), ndcg(lambda _, sparse: [one.place for one in sparse])
    better, rows = max(alone, key=statistics.fmean), list[Row]()
    for name, way in ways().items():
        values = ndcg(way)
        gain, low, high = difference(values, better)
        rows.append(Row(f"{labelled.name} nDCG@10", name, statistics.fmean(values), "", len(values)))
        rows.append(Row(f"{labelled.name} over the better half", name, gain, "", len(values)))
        print(f"{labelled.name:<22}{name:<14}{rows[-2].value:.4f}  {gain:+.4f} ({low:+.4f} to {high:+.4f})", flush=True)
    return rows


async def measure(sets: Sequence[LabelledSet]) -> list[Row]:
    """The figures of every set, printed as they come."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        async with open_served(Path(folder)) as served:
            for labelled in sets:
                await served.ingest(labelled, labelled.name)
                asked = {"candidates": _CANDIDATES, "topK": _EVERY_HIT, "explain": True}
                rows += compare(labelled, await served.search(labelled, labelled.name, **asked))
    return rows


if __name__ == "__main__":
    print(write("eval_fusion", asyncio.run(measure([sample(read_set(Path(folder))) for folder in sys.argv[1:]]))))
