"""How often the cache answers a question put in other words, and how often one that asks something else.

From labelled questions (bench/cache_pairs.py says how) come paraphrases, which should be answered again, and near
misses, which must not; nor must two questions of one paragraph that have different answers, or one that has an answer
and one that has none there. Judged by the cosine of embedder_svc's vectors at several thresholds, with the gateway's
guard and without. The argument is a folder in the form of squad-dev10. QUESTIONS=N takes so many. DOCS=1 writes
docs/quality.md, SHOW=0.85 lists what is judged wrongly at that threshold.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.cache_pairs import names_of, near_misses, paraphrases
from bench.harness import Row, commit, machine, write
from bench.labelled import FolderError, read_set
from deploy.local import redis_server, services
from deploy.local.errors import StartError
from deploy.local.settings import LocalSettings, Ports
from deploy.local.supervisor import keep_running
from gateway.equality import normalised
from gateway.likeness import same_sense, sense_of
from meshkit.channel import open_channel
from meshkit.identity import Identity
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc

THRESHOLDS = (0.8, 0.85, 0.9, 0.95, 0.98)
DOCUMENT = Path("docs/quality.md")
_BEGIN, _END = "<!-- eval:cache -->", "<!-- /eval:cache -->"
_SEED = 0
_BATCH = 64
_NATURAL = ("of one paragraph", "without an answer there")
_Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pair:
    """A question whose answer is cached, one that is asked next, how the two differ, and whether they ask the same."""

    cached: str
    asked: str
    kind: str
    same: bool


def made_pairs(articles: Mapping[str, Sequence[str]]) -> list[Pair]:
    """Paraphrases and near misses of the questions of each article."""
    draw, pairs = random.Random(_SEED), list[Pair]()  # noqa: S311 - no secret
    for questions in articles.values():
        names = names_of(questions)
        for question in questions:
            pairs += [Pair(question, text, kind, same=True) for kind, text in paraphrases(question, draw)]
            pairs += [Pair(question, text, kind, same=False) for kind, text in near_misses(question, names, draw)]
    return pairs


def natural_pairs(folder: Path, questions: Mapping[str, str], place: Mapping[str, str]) -> list[Pair]:
    """Questions of one paragraph that have no answer in common, and those beside one that has none there."""
    answers = {row["id"]: {normalised(text) for text in row["answers"]} for row in _rows(folder / "queries.jsonl")}
    by_paragraph = defaultdict[str, list[str]](list)
    for query in questions:
        by_paragraph[place[query]].append(query)
    pairs = [
        Pair(questions[one], questions[other], _NATURAL[0], same=False)
        for queries in by_paragraph.values()
        for one, other in itertools.permutations(queries, 2)
        if not answers[one] & answers[other]
    ]
    for row in _rows(folder / "unanswerable.jsonl") if (folder / "unanswerable.jsonl").is_file() else ():
        beside = by_paragraph.get(str(row.get("near_passage", "")), ())
        pairs += [Pair(questions[query], row["text"], _NATURAL[1], same=False) for query in beside]
    return pairs


async def encoded(texts: Sequence[str]) -> dict[str, _Vectors]:
    """The vector of each text as a query, by embedder_svc as `make up` runs it; raises StartError."""
    with tempfile.TemporaryDirectory() as name:
        folder, ports = Path(name), Ports.free().chosen()
        settings = LocalSettings(data_dir=folder)
        redis = redis_server.program(folder / "redis", ports.redis)
        embedder = services.program("embedder", settings, ports, folder)
        async with (
            keep_running(redis, folder / "redis.log", settings) as store,
            keep_running(embedder, folder / "embedder.log", settings) as process,
            open_channel(services.address("embedder", ports), identity=Identity("eval", "eval")) as channel,
        ):
            await store.serving()
            await process.serving()
            stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
            vectors = list[_Vectors]()
            for begin in range(0, len(texts), _BATCH):
                request = embedder_pb2.EmbedRequest(
                    texts=texts[begin : begin + _BATCH], task=embedder_pb2.TASK_TYPE_QUERY
                )
                packed = (await stub.Embed(request)).vectors
                vectors += list(np.frombuffer(packed.data, "<f4").reshape(-1, packed.dimension))
    return dict(zip(texts, vectors, strict=True))


def judged(pairs: Sequence[Pair], vectors: Mapping[str, _Vectors]) -> list[Row]:
    """The share of each kind of pair that is a hit, at each threshold, with the guard and without."""
    cosines = np.array([float(vectors[pair.cached] @ vectors[pair.asked]) for pair in pairs])
    equal = np.array([normalised(pair.cached) == normalised(pair.asked) for pair in pairs])
    guarded = np.array([same_sense(sense_of(pair.cached), sense_of(pair.asked)) for pair in pairs])
    same = np.array([pair.same for pair in pairs])
    kinds = np.array([pair.kind for pair in pairs])
    groups = {"hits on paraphrases": same, "false hits": ~same}
    groups |= {f"{kind} (same)": (kinds == kind) & same for kind in dict.fromkeys(kinds[same])}
    groups |= {f"{kind} (other)": (kinds == kind) & ~same for kind in dict.fromkeys(kinds[~same])}
    rows = list[Row]()
    for threshold in THRESHOLDS:
        for guard, allowed in (("guarded", guarded), ("bare", np.ones_like(guarded))):
            hits = equal | ((cosines >= threshold) & allowed)
            rows += [
                Row(name, f"{guard} {threshold}", float(hits[group].mean()), "", int(group.sum()))
                for name, group in groups.items()
            ]
    return rows


def table(rows: Sequence[Row]) -> str:
    """The shares in percent: a row for each kind of pair, a column for each threshold, guarded and bare."""
    values = {(row.metric, row.subject): row.value for row in rows}
    subjects = [f"{guard} {threshold}" for guard in ("guarded", "bare") for threshold in THRESHOLDS]
    lines = [
        f"{machine()}; commit {commit() or 'unknown'}. Hits in percent, by the least cosine.",
        "",
        f"| pairs | number | {' | '.join(subjects)} |",
        f"|---|---:|{'---:|' * len(subjects)}",
    ]
    for name, number in dict.fromkeys((row.metric, row.rounds) for row in rows):
        cells = " | ".join(f"{100 * values[name, subject]:.2f}" for subject in subjects)
        lines.append(f"| {name} | {number} | {cells} |")
    return "\n".join(lines)


def main(folder: Path) -> None:
    """Measure, write build/bench/eval_cache.json and, with DOCS=1, the document; raises FolderError, StartError."""
    labelled = read_set(folder)
    drawn = random.Random(_SEED).sample(sorted(labelled.queries), len(labelled.queries))  # noqa: S311 - no secret
    chosen = drawn[: int(os.environ.get("QUESTIONS", len(drawn)))]
    questions = {query: labelled.queries[query] for query in chosen}
    place = {query: next(iter(labelled.qrels[query])) for query in questions}
    articles = defaultdict[str, list[str]](list)
    for query, text in questions.items():
        articles[labelled.documents[place[query]].title].append(text)
    pairs = made_pairs(articles) + natural_pairs(folder, questions, place)
    vectors = asyncio.run(encoded(list(dict.fromkeys(text for pair in pairs for text in (pair.cached, pair.asked)))))
    rows = judged(pairs, vectors)
    print(table(rows))
    print(write("eval_cache", rows))
    if os.environ.get("DOCS") == "1":
        before, begin, rest = DOCUMENT.read_text().partition(_BEGIN)
        _, end, after = rest.partition(_END)
        DOCUMENT.write_text(f"{before}{begin}\n{table(rows)}\n{end}{after}")
    if os.environ.get("SHOW"):
        _show(pairs, vectors, float(os.environ["SHOW"]))


def _show(pairs: Sequence[Pair], vectors: Mapping[str, _Vectors], threshold: float) -> None:
    """The pairs that were judged wrongly, guarded."""
    for pair in pairs:
        near = float(vectors[pair.cached] @ vectors[pair.asked]) >= threshold
        hit = near and same_sense(sense_of(pair.cached), sense_of(pair.asked))
        if hit != pair.same:
            print(f"{pair.kind}\t{'false hit' if hit else 'no hit'}\t{pair.cached}\t{pair.asked}")


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except (FolderError, StartError) as error:
        sys.exit(f"eval-cache: {error}")
