"""How well retrieval ranks: nDCG@10, recall at 5 and 20 and MRR on labelled questions, of each half and of hybrid.

Documents go in through ingest_svc and questions through retriever_svc, as anyone's do; a document stands where its best
chunk does. Folders are arguments (bench/labelled.py says what one holds). ENCODERS='DTYPE=float32 DTYPE=bfloat16'
compares the encoder under these settings (RAGMESH_EMBEDDER_*) by dense search; RERANKER is a cross-encoder for hybrid
with every option. QUERIES=N asks so many of each set only. DOCS=1 writes docs/quality.md and its plot.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ir_measures import RR, R, nDCG

from bench.chart import Bars, bars
from bench.harness import Row, commit, machine, write
from bench.labelled import FolderError, LabelledSet, read_set
from bench.retrieval import Found, Served, open_served
from deploy.local.errors import StartError

DOCUMENT = Path("docs/quality.md")
CHART = Path("docs/quality.svg")
MEASURES = {"nDCG@10": nDCG @ 10, "recall@5": R @ 5, "recall@20": R @ 20, "MRR": RR}
_BEGIN, _END = "<!-- eval:retrieval -->", "<!-- /eval:retrieval -->"
_RESAMPLES = 10_000
_SEED = 0

MODES: Mapping[str, Mapping[str, Any]] = {
    "dense": {"mode": "SEARCH_MODE_DENSE"},
    "sparse": {"mode": "SEARCH_MODE_SPARSE"},
    "hybrid": {"mode": "SEARCH_MODE_HYBRID"},
    "every option": {"mode": "SEARCH_MODE_HYBRID", "diversity": 0.1, "rerank": True, "window": 1},
}
"""What is judged by name; `every option` is hybrid with diversity, a window and, where there is one, a reranker."""


def measured(qrels: Mapping[str, Mapping[str, int]], ranked: Mapping[str, Sequence[str]]) -> dict[str, list[float]]:
    """Each measure of each query, in the order of `qrels`; a query that found nothing has 0."""
    run = {query: {document: 1.0 / rank for rank, document in enumerate(found, 1)} for query, found in ranked.items()}
    grades = {query: dict(judged) for query, judged in qrels.items()}
    values: dict[str, list[float]] = {}
    for name, measure in MEASURES.items():
        by_query = {metric.query_id: metric.value for metric in measure.iter_calc(grades, run)}
        values[name] = [by_query.get(query, 0.0) for query in qrels]
    return values


def difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """The mean difference over the same queries, and its 95% interval by a paired bootstrap."""
    paired = np.asarray(ours) - np.asarray(theirs)
    draws = np.random.default_rng(_SEED).integers(0, len(paired), (_RESAMPLES, len(paired)))
    low, high = np.quantile(paired[draws].mean(axis=1), [0.025, 0.975])
    return float(paired.mean()), float(low), float(high)


async def evaluate(served: Served, labelled: LabelledSet, modes: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """The figures of each mode on the set, hybrid's margin over the better half with them."""
    await served.ingest(labelled, labelled.name)
    rows, ndcg = list[Row](), dict[str, list[float]]()
    for mode, fields in modes.items():
        found = await served.search(labelled, labelled.name, **fields)
        values = measured(labelled.qrels, {query: hits.documents for query, hits in found.items()})
        ndcg[mode] = values["nDCG@10"]
        rows += [_row(labelled, name, mode, float(np.mean(of))) for name, of in values.items()]
        _tell(labelled, mode, values, found)
    if {"dense", "sparse", "hybrid"} <= ndcg.keys():
        better = max("dense", "sparse", key=lambda half: float(np.mean(ndcg[half])))
        for name, value in zip(_MARGIN, difference(ndcg["hybrid"], ndcg[better]), strict=True):
            rows.append(_row(labelled, name, "hybrid", value))
    return rows


_MARGIN = ("over the better half", "at least", "at most")


def _row(labelled: LabelledSet, metric: str, subject: str, value: float) -> Row:
    return Row(f"{labelled.name} {metric}", subject, value, "", len(labelled.queries))


def _tell(labelled: LabelledSet, mode: str, values: Mapping[str, list[float]], found: Mapping[str, Found]) -> None:
    degraded = sorted({stage for hits in found.values() for stage in hits.degraded})
    figures = "  ".join(f"{name} {np.mean(of):.4f}" for name, of in values.items())
    print(f"{labelled.name:<22}{mode:<14}{figures}{'  without ' + ', '.join(degraded) if degraded else ''}", flush=True)


async def measure(sets: Sequence[LabelledSet]) -> list[Row]:
    """The figures of every set, mode and, by dense search, encoder to compare; printed as they come."""
    rows = await _judge(sets, {"RAGMESH_EMBEDDER_RERANKER_MODEL": os.environ.get("RERANKER", "")}, MODES)
    for pair in os.environ.get("ENCODERS", "").split():
        variable, value = pair.split("=", 1)
        rows += await _judge(sets, {f"RAGMESH_EMBEDDER_{variable}": value}, {f"dense, {value}": MODES["dense"]})
    return rows


def main(folders: Sequence[Path]) -> None:
    """Measure, write build/bench/eval_retrieval.json and, with DOCS=1, the document; raises FolderError, StartError."""
    rows = asyncio.run(measure([sample(read_set(folder)) for folder in folders]))
    print(write("eval_retrieval", rows))
    if os.environ.get("DOCS") == "1":
        before, begin, rest = DOCUMENT.read_text().partition(_BEGIN)
        _, end, after = rest.partition(_END)
        DOCUMENT.write_text(f"{before}{begin}\n{table(rows)}\n{end}{after}")
        CHART.write_text(plot(rows))


async def _judge(
    sets: Sequence[LabelledSet], variables: Mapping[str, str], modes: Mapping[str, Mapping[str, Any]]
) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        async with open_served(Path(folder), variables) as served:
            return [row for labelled in sets for row in await evaluate(served, labelled, modes)]


def sample(labelled: LabelledSet) -> LabelledSet:
    """The set with at most QUERIES of its queries, drawn by a seed."""
    count = min(int(os.environ.get("QUERIES", len(labelled.queries))), len(labelled.queries))
    drawn = sorted(random.Random(_SEED).sample(sorted(labelled.queries), count))  # noqa: S311 - no secret
    return dataclasses.replace(
        labelled,
        queries={query: labelled.queries[query] for query in drawn},
        qrels={query: labelled.qrels[query] for query in drawn},
    )


def table(rows: Sequence[Row]) -> str:
    """The figures, a row for each set and mode, with what hybrid gains over the better half."""
    values = {(row.metric, row.subject): row.value for row in rows}
    lines = [
        f"{machine()}; commit {commit() or 'unknown'}.",
        "",
        f"| set | queries | mode | {' | '.join(MEASURES)} | over the better half, 95% interval |",
        f"|---|---:|---|{'---:|' * (len(MEASURES) + 1)}",
    ]
    for name, queries, mode in dict.fromkeys((row.metric.split(" ")[0], row.rounds, row.subject) for row in rows):
        figures = [f"{values[f'{name} {measure}', mode]:.3f}" for measure in MEASURES]
        margin = [values[f"{name} {part}", mode] for part in _MARGIN if (f"{name} {part}", mode) in values]
        gained = "{:+.3f} ({:+.3f} to {:+.3f})".format(*margin) if margin else ""
        lines.append(f"| {name} | {queries} | {mode} | {' | '.join(figures)} | {gained} |")
    return "\n".join(lines)


def plot(rows: Sequence[Row]) -> str:
    """nDCG@10 of each mode on each set."""
    groups: dict[str, dict[str, float]] = {}
    for row in rows:
        labelled, _, metric = row.metric.partition(" ")
        if metric == "nDCG@10":
            groups.setdefault(labelled, {})[row.subject] = row.value
    return bars(Bars("nDCG@10", groups))


if __name__ == "__main__":
    try:
        main([Path(folder) for folder in sys.argv[1:]])
    except (FolderError, StartError) as error:
        sys.exit(f"eval-retrieval: {error}")
