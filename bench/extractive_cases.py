"""Questions with the passages that an answer is to be quoted from, for measuring and fitting the extractive engine.

A folder holds corpus.jsonl {id, title, text}, queries.jsonl {id, text, answers}, qrels.tsv and, where there is one,
unanswerable.jsonl {id, text, near_passage}, as SQuAD gives them. Every passage has for its score the cosine of its
vector with the question's, as a dense search would give it.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from embedder_svc.encoding import LoadOptions, Task, Vectors
from embedder_svc.sentence_transformer_encoder import SentenceTransformerEncoder
from embedder_svc.weights import BUNDLED_MODEL
from generator_svc.engine import Passage
from generator_svc.terms import terms

_PASSAGES = 5
_STRANGERS = 60
_SEED = 0
_BATCH = 32


class Given(Enum):
    """What the passages are: with the answer, near an answer that is not there, or about other things."""

    ANSWER = "the answer's passage and the four of its title that share most words with the question"
    NEAR = "of an unanswerable question: the passage it was written against, and four as above"
    STRANGERS = "the five of sixty drawn from other titles that share most words with the question"


@dataclass(frozen=True)
class Case:
    """A question and its passages; `golden` is the number of the one that holds one of the answers, 0 for none."""

    given: Given
    title: str
    question: str
    passages: tuple[Passage, ...]
    golden: int = 0
    answers: tuple[str, ...] = ()

    def held_by(self, passage: Passage, text: str) -> bool:
        """Whether a text of a passage holds the answer: that of the golden passage, and one of the answers is in it."""
        quote = text.casefold()
        return passage.number == self.golden and any(answer.casefold() in quote for answer in self.answers)


class Vectorizer:
    """The bundled encoder, in this process; remembers the vector of every text."""

    def __init__(self) -> None:
        self._encoder = SentenceTransformerEncoder.load(BUNDLED_MODEL, BUNDLED_MODEL, LoadOptions())
        self._known: dict[tuple[Task, str], Vectors] = {}

    def similarities_anew(self, question: str, texts: Sequence[str]) -> list[float]:
        """As `similarities`, remembering nothing: what an answer costs."""
        asked, found = self._encoder.encode([question], Task.QUERY), self._encoder.encode(texts, Task.DOCUMENT)
        return [float(cosine) for cosine in found @ asked[0]]

    def __call__(self, texts: Sequence[str], task: Task) -> Vectors:
        """One row of unit length a text."""
        unknown = iter(sorted({text for text in texts if (task, text) not in self._known}, key=len))
        while batch := list(islice(unknown, _BATCH)):
            rows = self._encoder.encode(batch, task)
            self._known.update(((task, text), row) for text, row in zip(batch, rows, strict=True))
        return np.stack([self._known[task, text] for text in texts])

    def similarities(self, question: str, texts: Sequence[str]) -> list[float]:
        """The cosine of each text with the question."""
        rows = self(texts, Task.DOCUMENT) @ self([question], Task.QUERY)[0]
        return [float(cosine) for cosine in rows]


@dataclass(frozen=True)
class Corpus:
    """The passages by id and the questions of a folder."""

    folder: Path
    passages: dict[str, dict[str, str]]

    @classmethod
    def read(cls, folder: Path) -> "Corpus":
        """The corpus in a folder."""
        return cls(folder, {passage["id"]: passage for passage in _lines(folder / "corpus.jsonl")})

    @cached_property
    def titles(self) -> list[str]:
        """Each title once, sorted: of every two the first is for tuning, the second for figures."""
        return sorted({passage["title"] for passage in self.passages.values()})

    def cases(self, vectors: Vectorizer) -> list[Case]:
        """Every question, and every one with answers once more among strangers."""
        drawing = _Drawing(self, vectors)
        judged = (self.folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]
        golden = {query: id for query, id, _ in (line.split("\t") for line in judged)}
        found = []
        for question in _lines(self.folder / "queries.jsonl"):
            own = golden[question["id"]]
            found += [drawing.near(Given.ANSWER, question, own), drawing.strangers(question, own)]
        unanswerable = self.folder / "unanswerable.jsonl"
        for question in _lines(unanswerable) if unanswerable.exists() else ():
            found.append(drawing.near(Given.NEAR, question, question["near_passage"]))
        return found


class _Drawing:
    """Draws passages for questions; the same ones each time."""

    def __init__(self, corpus: Corpus, vectors: Vectorizer) -> None:
        self._passages = corpus.passages
        self._terms = {id: frozenset(terms(passage["text"])) for id, passage in corpus.passages.items()}
        # Where every passage has a title of its own, its neighbours are all the others.
        self._one_each = len(corpus.titles) == len(corpus.passages)
        self._vectors = vectors
        self._chance = random.Random(_SEED)  # noqa: S311 - a draw to be repeated, not a secret

    def near(self, given: Given, question: dict[str, Any], own: str) -> Case:
        others = [id for id in self._passages if id != own and (self._one_each or self._title(id) == self._title(own))]
        ids = [own, *self._closest(question["text"], others, _PASSAGES - 1)]
        self._chance.shuffle(ids)
        answers = tuple(question["answers"])
        golden = ids.index(own) + 1 if given is Given.ANSWER else 0
        return Case(given, self._title(own), question["text"], self._scored(question["text"], ids), golden, answers)

    def strangers(self, question: dict[str, Any], own: str) -> Case:
        others = [id for id in self._passages if self._title(id) != self._title(own)]
        drawn = self._chance.sample(others, min(_STRANGERS, len(others)))
        ids = self._closest(question["text"], drawn, _PASSAGES)
        return Case(Given.STRANGERS, self._title(own), question["text"], self._scored(question["text"], ids))

    def _title(self, id: str) -> str:
        return self._passages[id]["title"]

    def _closest(self, question: str, ids: Sequence[str], count: int) -> list[str]:
        asked = frozenset(terms(question))
        return sorted(ids, key=lambda id: -len(asked & self._terms[id]))[:count]

    def _scored(self, question: str, ids: Sequence[str]) -> tuple[Passage, ...]:
        found = [self._passages[id] for id in ids]
        scores = self._vectors.similarities(question, [passage["text"] for passage in found])
        return tuple(
            Passage(number, passage["text"], passage["title"], score)
            for number, (passage, score) in enumerate(zip(found, scores, strict=True), start=1)
        )


def halves(corpus: Corpus, cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """Those for tuning and those for figures, by every second title."""
    tuning = set(corpus.titles[::2])
    return [case for case in cases if case.title in tuning], [case for case in cases if case.title not in tuning]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
