"""How often the extractive engine's first quote holds the answer, and how often it abstains, on questions with answers.

`python -m bench.extractive FOLDER`: corpus.jsonl {id, title, text}, queries.jsonl {id, text, answers} and qrels.tsv, as
SQuAD gives them. Each question gets its own passage among the four of the same title that share most words with it;
and, to see it abstain, five passages of other titles.
"""

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import Row, write
from generator_svc.engine import Passage
from generator_svc.evidence import Candidate, choose, terms, weigh
from generator_svc.settings import Settings

_PASSAGES = 5
_STRANGERS = 60
_SEED = 0


@dataclass(frozen=True)
class Corpus:
    """The passages by id, the terms of each, the questions, and by question the id of its passage."""

    passages: dict[str, dict[str, str]]
    terms: dict[str, set[str]]
    questions: list[dict[str, Any]]
    golden: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> "Corpus":
        """The corpus in a folder."""
        passages = {passage["id"]: passage for passage in _lines(folder / "corpus.jsonl")}
        judged = (folder / "qrels.tsv").read_text().splitlines()[1:]
        return cls(
            passages=passages,
            terms={id: set(terms(passage["text"])) for id, passage in passages.items()},
            questions=_lines(folder / "queries.jsonl"),
            golden={query: id for query, id, _ in (line.split("\t") for line in judged)},
        )

    def closest(self, question: str, ids: Sequence[str], count: int) -> list[str]:
        """Those that share most terms with the question."""
        asked = set(terms(question))
        return sorted(ids, key=lambda id: -len(asked & self.terms[id]))[:count]


def main(folder: Path) -> None:
    """Measure, print and write build/bench/extractive.json."""
    min_support = Settings.model_fields["min_support"].default
    corpus, chance = Corpus.read(folder), random.Random(_SEED)  # noqa: S311 - a draw to be repeated, not a secret
    counts = {"first quote holds the answer": 0, "abstains with the answer at hand": 0, "abstains among strangers": 0}
    for question in corpus.questions:
        golden = corpus.passages[corpus.golden[question["id"]]]
        same = [i for i, p in corpus.passages.items() if p["title"] == golden["title"] and i != golden["id"]]
        others = [i for i, p in corpus.passages.items() if p["title"] != golden["title"]]
        near = [golden["id"], *corpus.closest(question["text"], same, _PASSAGES - 1)]
        chance.shuffle(near)
        drawn = chance.sample(others, min(_STRANGERS, len(others)))
        ranked = _weigh(corpus, question["text"], near)
        strangers = _weigh(corpus, question["text"], corpus.closest(question["text"], drawn, _PASSAGES))
        counts["first quote holds the answer"] += _holds(ranked[0], golden["text"], question["answers"])
        counts["abstains with the answer at hand"] += not choose(ranked, min_support)
        counts["abstains among strangers"] += not choose(strangers, min_support)
    total = len(corpus.questions)
    rows = [Row(metric, folder.name, 100 * count / total, "%", total) for metric, count in counts.items()]
    for row in rows:
        print(f"{row.metric:<32}{row.value:6.1f} {row.unit} of {total}")
    print(write("extractive", rows))


def _weigh(corpus: Corpus, question: str, ids: Sequence[str]) -> list[Candidate]:
    found = [corpus.passages[id] for id in ids]
    given = [Passage(number, passage["text"], passage["title"]) for number, passage in enumerate(found, 1)]
    return weigh(question, given)


def _holds(candidate: Candidate, golden: str, answers: Sequence[str]) -> bool:
    quote = candidate.quote.text.casefold()
    return candidate.passage.text == golden and any(answer.casefold() in quote for answer in answers)


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
