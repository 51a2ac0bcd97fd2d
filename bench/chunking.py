"""What each chunking strategy does to retrieval: whether the answer is found whole, and the document.

`python -m bench.chunking FOLDER...` cuts the documents of each folder (bench.chunking_cases) by every strategy with its
default parameters, encodes the chunks with the bundled encoder and searches as retriever_svc does: exact cosines and
LanceDB's BM25, fused by its own code. Of squad-dev10 the questions about every second article count, the others having
been tuned on; HALF=0 counts those. CHUNKINGS='["token", {"max_tokens": 120}]' (JSON, one after another) cuts in these
ways instead, DOCUMENTS=N takes the first so many of each folder with the documents asked for. DOCS=1 writes the table.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
from lancedb.index import FTS
from numpy.typing import NDArray

from bench.chunking_cases import Cases, Document, Question, read_cases
from bench.harness import Row, commit, machine, write
from embedder_svc.encoding import ModelOptions, Task
from embedder_svc.loading import load_encoder
from embedder_svc.weights import BUNDLED_MODEL
from ingest_svc.chunking import Chunk, Encoded, Strategies
from ingest_svc.pipeline import with_context
from ingest_svc.strategies.loading import load_strategies
from retriever_svc.fusion import Weighted, fuse
from retriever_svc.index import Language, Place, Scored
from retriever_svc.words import words_of_query

DOCUMENT = Path("docs/quality.md")
_BEGIN, _END = "<!-- bench:chunking -->", "<!-- /bench:chunking -->"
_BATCH = 32
_CANDIDATES, _TOP = 100, 5
# What a prompt has room for: strategies with large chunks would win by their size alone.
_BUDGET_TOKENS = 300
METRICS = {
    "answers in 1": "answer in the first chunk",
    "answers in 5": "answer in the first 5",
    "answers in 300": f"answer in the first {_BUDGET_TOKENS} tokens",
    "recall@5": "document in the first 5",
    "chunks": "chunks",
    "tokens": "tokens a chunk, mean",
    "cut": "seconds to cut",
    "encode": "seconds to encode for cutting",
}
"""The figures, and their words in the table."""


class Encoder:
    """The bundled encoder in this process; remembers every text's vector."""

    def __init__(self) -> None:
        self._encoder = load_encoder(ModelOptions(BUNDLED_MODEL, BUNDLED_MODEL))
        self._known: dict[tuple[str, Task], NDArray[np.float32]] = {}

    def token_ends(self, text: str) -> list[int]:
        """The byte after each token."""
        (ends,) = self._encoder.char_ends([text])
        sizes = np.cumsum([0, *(len(character.encode()) for character in text)])
        return [int(sizes[end]) for end in ends]

    def encode(self, texts: Sequence[str], task: Task = Task.DOCUMENT) -> NDArray[np.float32]:
        """A row of unit length for each text."""
        unknown = sorted({text for text in texts if (text, task) not in self._known}, key=len)
        for start in range(0, len(unknown), _BATCH):
            batch = unknown[start : start + _BATCH]
            rows = self._encoder.encode(batch, task)
            self._known.update(zip([(text, task) for text in batch], rows, strict=True))
        return np.array([self._known[text, task] for text in texts], np.float32).reshape(
            len(texts), self._encoder.card.dimension
        )


@dataclass(frozen=True, slots=True)
class Cut:
    """The chunks of all documents, and the seconds that cutting and encoding for it took."""

    chunks: Mapping[Place, Chunk]
    seconds: float
    encoding_s: float


class Cutting:
    """Cuts documents as ingest_svc does, with this process's encoder."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._strategies: Strategies = load_strategies()
        self._ends: dict[int, list[int]] = {}

    @property
    def names(self) -> list[str]:
        """The strategies, the one that chooses first."""
        return [strategy.name for strategy in self._strategies]

    def cut(self, documents: Mapping[str, Document], strategy: str, parameters: Mapping[str, Any]) -> Cut:
        """Every document cut by one strategy."""
        asked, chunks, seconds, encoding_s = self._strategies.resolve(strategy, parameters), {}, 0.0, 0.0
        for key, document in documents.items():
            ends = self._ends.setdefault(id(document), self._encoder.token_ends(document.extract.text))
            started = time.perf_counter()
            chosen = self._strategies.choose(asked, document.extract).chunking
            probes = self._strategies.probes(chosen, document.extract)
            probed = time.perf_counter()
            vectors = self._encoder.encode(probes)
            encoded = time.perf_counter()
            found = self._strategies.cut(chosen, document.extract, Encoded(ends, vectors))
            seconds += time.perf_counter() - encoded + probed - started
            encoding_s += encoded - probed
            chunks.update({Place(key, chunk.ordinal): chunk for chunk in found})
        return Cut(chunks, seconds, encoding_s)


class Search:
    """Hybrid search over chunks as retriever_svc does it; lives for one way of cutting."""

    def __init__(
        self, folder: Path, encoder: Encoder, chunks: Mapping[Place, Chunk], titles: Mapping[str, str]
    ) -> None:
        self._encoder = encoder
        self._places = list(chunks)
        texts = [with_context(chunk, titles[place.document]) for place, chunk in chunks.items()]
        self._vectors = encoder.encode(texts)
        rows = [{"place": place, "words": text} for place, text in enumerate(texts)]
        self._table = lancedb.connect(folder).create_table("chunks", rows, mode="overwrite")
        self._table.create_index("words", config=FTS(stem=True, remove_stop_words=False))

    def find(self, question: str) -> list[Place]:
        """The best chunks first."""
        cosines = self._vectors @ self._encoder.encode([question], Task.QUERY)[0]
        best = np.argsort(-cosines, kind="stable")[:_CANDIDATES]
        dense = [Scored(self._places[row], float(cosines[row])) for row in best]
        words = words_of_query(Language.ENGLISH, question)
        rows = self._table.search(words, query_type="fts").limit(_CANDIDATES).to_list()
        sparse = [Scored(self._places[row["place"]], float(row["_score"])) for row in rows]
        return [found.place for found in fuse(Weighted(), dense, sparse)]


def judge(question: Question, found: Sequence[Place], chunks: Mapping[Place, Chunk]) -> dict[str, float]:
    """What one question's hits are worth: 0 or 1 each."""
    within, tokens = 0, 0
    for place in found:
        tokens += chunks[place].token_count
        if tokens > _BUDGET_TOKENS:
            break
        within += 1
    answered = [question.answered_by(place.document, chunks[place]) for place in found]
    documents = list(dict.fromkeys(place.document for place in found))
    return {
        "answers in 1": float(any(answered[:1])),
        "answers in 5": float(any(answered[:_TOP])),
        "answers in 300": float(any(answered[:within])),
        "recall@5": float(question.document in documents[:_TOP]),
    }


def measure(cases: Cases, cutting: Cutting, encoder: Encoder, ways: Sequence[tuple[str, Any]]) -> Iterator[Row]:
    """The figures of each way on the questions, printed as they come."""
    titles = {key: document.title for key, document in cases.documents.items()}
    for strategy, parameters in ways:
        cut = cutting.cut(cases.documents, strategy, parameters)
        encoder.encode([asked.text for asked in cases.questions], Task.QUERY)
        with tempfile.TemporaryDirectory() as folder:
            search = Search(Path(folder), encoder, cut.chunks, titles)
            judged = [judge(asked, search.find(asked.text), cut.chunks) for asked in cases.questions]
        figures = {name: float(np.mean([each[name] for each in judged])) for name in judged[0]}
        if not cases.quoted:
            figures = {"recall@5": figures["recall@5"]}
        figures["chunks"] = len(cut.chunks)
        figures["tokens"] = float(np.mean([chunk.token_count for chunk in cut.chunks.values()]))
        figures |= {"cut": cut.seconds, "encode": cut.encoding_s}
        subject = strategy + (f" {json.dumps(parameters)}" if parameters else "")
        told = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
        print(f"{cases.name:<14}{subject:<16}{told}", flush=True)
        yield from (Row(f"{cases.name} {name}", subject, value, "", len(judged)) for name, value in figures.items())


def main(folders: Sequence[Path]) -> None:
    """Measure, write build/bench/chunking.json and, with DOCS=1, the document."""
    encoder = Encoder()
    cutting = Cutting(encoder)
    ways = _asked() or [(name, {}) for name in cutting.names]
    rows: list[Row] = []
    for folder in folders:
        cases = _fewer(read_cases(folder))
        if cases.quoted:
            cases = cases.half(second=os.environ.get("HALF") != "0")
        rows += measure(cases, cutting, encoder, ways)
    print(write("chunking", rows))
    if os.environ.get("DOCS") == "1":
        before, begin, rest = DOCUMENT.read_text().partition(_BEGIN)
        _, end, after = rest.partition(_END)
        DOCUMENT.write_text(f"{before}{begin}\n{table(rows)}\n{end}{after}")


def _asked() -> list[tuple[str, dict[str, Any]]]:
    """The ways of CHUNKINGS: JSON lists of a strategy and its parameters, one after another."""
    decoder, text, found = json.JSONDecoder(), os.environ.get("CHUNKINGS", "").strip(), []
    while text:
        (strategy, parameters), end = decoder.raw_decode(text)
        found.append((strategy, parameters))
        text = text[end:].strip()
    return found


def _fewer(cases: Cases) -> Cases:
    count = int(os.environ.get("DOCUMENTS", len(cases.documents)))
    asked = {question.document for question in cases.questions}
    kept = asked | set(list(cases.documents)[:count])
    return Cases(cases.name, {key: cases.documents[key] for key in cases.documents if key in kept}, cases.questions)


def table(rows: Sequence[Row]) -> str:
    """A table a folder, with a row a strategy."""
    values = {(row.metric, row.subject): row for row in rows}
    lines = [f"{machine()}; commit {commit() or 'unknown'}."]
    for name in dict.fromkeys(row.metric.partition(" ")[0] for row in rows):
        metrics = [metric for metric in METRICS if any(row.metric == f"{name} {metric}" for row in rows)]
        count = next(row.rounds for row in rows if row.metric.startswith(f"{name} "))
        lines += ["", f"| {name}, {count} questions | {' | '.join(METRICS[metric] for metric in metrics)} |"]
        lines.append(f"|---|{'---:|' * len(metrics)}")
        for subject in dict.fromkeys(row.subject for row in rows if row.metric.startswith(f"{name} ")):
            figures = [_figure(metric, values[f"{name} {metric}", subject].value) for metric in metrics]
            lines.append(f"| {subject} | {' | '.join(figures)} |")
    return "\n".join(lines)


def _figure(metric: str, value: float) -> str:
    if metric == "chunks":
        return f"{value:,.0f}"
    return (
        f"{value:.0f}" if metric == "tokens" else f"{value:.3f}" if " " in metric or "@" in metric else f"{value:.1f}"
    )


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
