"""What encoding costs: embedder_svc, plain sentence-transformers, infinity, and the service's encoder called directly.

All four run all-MiniLM-L6-v2 on the CPU. Each is a process that is started for its part of a round, alone on the
machine but for this caller, and ended after it. `ragmesh` is embedder_svc as the local mesh runs it, over gRPC and
without its cache; `sentence-transformers` is one process that encodes in a loop, with its default batch size, and lets
callers who come at once take turns; `infinity` is infinity-emb's HTTP server on its ONNX engine; `bare-engine`, the
floor, is the service's encoder called directly: all texts of the bulk, or all questions that come at once, in one call,
sorted and cut into batches like the service's.

Before anything is measured, the vectors of all must agree. `start_s` is from the start of the process to the first
vector, `peak_mb` the most memory that it ever held. ROUNDS is the number of rounds; the argument is a folder whose
corpus.jsonl has texts, made-up ones taking their place where there is none.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import uvloop

from bench.embed_subjects import INFINITY, Open, Subject, open_infinity, open_ragmesh, open_worker
from bench.embed_texts import Texts, open_texts
from bench.harness import Benchmark, Reading, peak_mb, quantile, rounds
from embedder_svc import weights
from embedder_svc.encoding import Vectors

BULK_TEXTS = 256
QUESTIONS = {1: 100, 8: 160, 32: 320}
"""How many questions are asked in a round with so many calls at once."""
_WARM_TEXTS, _AGREE_TEXTS = 32, 32
_LEAST_COSINE = 0.99
"""bfloat16 leaves more than 0.999 of a vector; a wrong pooling, cut or prompt leaves far less."""
_FLOOR, _PLAIN, _OURS = "bare-engine", "sentence-transformers", "ragmesh"
_WORDS = {"query_p50_ms": "query p50, ms", "query_p99_ms": "query p99, ms", "queries_per_s": "queries/s"}
WORDS = {
    "texts_per_s": "bulk, texts/s",
    "tokens_per_s": "bulk, tokens/s",
    **{f"{metric}_{n}": f"{words}, at {n}" for n in QUESTIONS for metric, words in _WORDS.items()},
    "peak_mb": "peak memory, MB",
    "start_s": "start to first vector, s",
}


@dataclass
class Drawer:
    """Gives every subject the same texts in the same round, and other ones in each round."""

    folder: Path
    drawn: dict[str, int] = field(default_factory=dict)

    def draw(self, subject: str) -> Texts:
        """The texts of the subject's next round."""
        number = self.drawn[subject] = self.drawn.get(subject, -1) + 1
        return open_texts(self.folder, Path(weights.locate(weights.BUNDLED_MODEL)) / "tokenizer.json", number)


async def measure(folder: Path) -> None:
    """Runs the rounds, prints the table and writes `build/bench/embed.json`; raises ValueError for unlike vectors."""
    benchmark = Benchmark("embed", rounds=rounds(3), warmup_rounds=0, floor=_FLOOR, words=WORDS)
    drawer = Drawer(folder)
    with tempfile.TemporaryDirectory() as logs:
        subjects = _subjects(Path(logs))
        await _agree(subjects, drawer)
        await benchmark.run({name: partial(_round, name, start, drawer) for name, start in subjects.items()})
    print(benchmark.report())
    _aims(benchmark)


def _subjects(logs: Path) -> dict[str, Open]:
    subjects: dict[str, Open] = {
        _OURS: partial(open_ragmesh, logs),
        _PLAIN: partial(open_worker, _PLAIN),
        "infinity": partial(open_infinity, logs),
        _FLOOR: partial(open_worker, _FLOOR),
    }
    if not (INFINITY / "model/model.onnx").exists():
        print(f"infinity is left out: nothing in {INFINITY}, where `make bench-embed` installs it")
        del subjects["infinity"]
    return subjects


async def _agree(subjects: Mapping[str, Open], drawer: Drawer) -> None:
    """Holds the vectors of all subjects to those of plain sentence-transformers; warms the file cache, too."""
    vectors: dict[str, Vectors] = {}
    for name, start in subjects.items():
        async with start() as subject:
            vectors[name] = (await subject.encode(drawer.draw(name).passages(_AGREE_TEXTS))).vectors
    for name, rows in vectors.items():
        cosine = least_cosine(rows, vectors[_PLAIN])
        print(f"vectors of {name}: cosine to {_PLAIN}'s at least {cosine:.5f}")
        if cosine < _LEAST_COSINE:
            raise ValueError(f"{name} makes other vectors: nothing is measured")


def least_cosine(rows: Vectors, others: Vectors) -> float:
    """The least cosine of a row and the other row in its place."""
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(others, axis=1)
    return float(np.min(np.sum(rows * others, axis=1) / norms))


async def _round(name: str, start: Open, drawer: Drawer) -> Mapping[str, Reading]:
    texts = drawer.draw(name)
    began_s = time.perf_counter()
    async with start() as subject:
        await subject.encode(["The harbour opens at six in the morning."])
        start_s = time.perf_counter() - began_s
        await subject.encode(texts.passages(_WARM_TEXTS))
        readings = await _bulk(subject, texts)
        for at_once, count in QUESTIONS.items():
            await subject.ask(texts.questions(at_once), at_once)
            readings |= await _queries(subject, texts.questions(count), at_once)
        readings["peak_mb"] = Reading(peak_mb(subject.pid), "MB")
    return {**readings, "start_s": Reading(start_s, "s")}


async def _bulk(subject: Subject, texts: Texts) -> dict[str, Reading]:
    passages = texts.passages(BULK_TEXTS)
    wall_s = (await subject.encode(passages)).wall_s
    return {
        "texts_per_s": Reading(len(passages) / wall_s, "texts/s"),
        "tokens_per_s": Reading(texts.tokens(passages) / wall_s, "tokens/s"),
    }


async def _queries(subject: Subject, questions: list[str], at_once: int) -> dict[str, Reading]:
    answered = await subject.ask(questions, at_once)
    return {
        f"query_p50_ms_{at_once}": Reading(quantile(answered.seconds, 0.5) * 1000, "ms"),
        f"query_p99_ms_{at_once}": Reading(quantile(answered.seconds, 0.99) * 1000, "ms"),
        f"queries_per_s_{at_once}": Reading(len(questions) / answered.wall_s, "queries/s"),
    }


def _aims(benchmark: Benchmark) -> None:
    """Prints what was aimed at beside what was measured."""
    found = {(row.metric, row.subject): row.value for row in benchmark.rows()}
    bulk = {name: found["texts_per_s", name] for name in (_OURS, _PLAIN, _FLOOR)}
    at_once = {name: found["queries_per_s_32", _OURS] / found["queries_per_s_1", name] for name in (_OURS, _PLAIN)}
    print(f"bulk against {_PLAIN}: {bulk[_OURS] / bulk[_PLAIN]:.2f}, aimed at 3")
    print(f"queries/s at 32 against one at a time: {at_once[_OURS]:.2f}, aimed at over 5")
    print(f"the same against one at a time by {_PLAIN}: {at_once[_PLAIN]:.2f}")
    print(f"bulk against {_FLOOR}: {bulk[_OURS] / bulk[_FLOOR]:.2f}, aimed at 0.90 or more")


if __name__ == "__main__":
    uvloop.run(measure(Path(sys.argv[1])))
