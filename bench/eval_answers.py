"""How good answers are: whether they hold the known ones, what they cite, and how well they know when there is none.

Documents go in through ingest_svc and questions through the gateway, as anyone's do, with the engine that it has.
Folders are arguments (bench/labelled.py says what one holds). QUERIES=N asks so many of each kind only. DOCS=1 writes
docs/quality.md and its plot. JUDGE_URL and JUDGE_MODEL, of any OpenAI-compatible endpoint, have a language model judge
faithfulness and relevance (bench/judging.py); RAGAS=1 has Ragas do so with the same one.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.answer_measures import contains, precision, recall, roc_area, token_f1
from bench.asking import Asked, Asking, keep, open_asking
from bench.chart import Bars, bars
from bench.harness import OUTPUT_FOLDER, Row, commit, machine, write
from bench.judging import Judge, judged, judged_by_ragas
from bench.labelled import FolderError, LabelledSet, read_answers, read_set, read_unanswerable
from deploy.local.errors import StartError

DOCUMENT = Path("docs/quality.md")
CHART = Path("docs/quality-answers.svg")
_BEGIN, _END = "<!-- eval:answers -->", "<!-- /eval:answers -->"
_SEED = 0

Answered = Mapping[str, tuple[Asked, Sequence[str], Sequence[str]]]
"""By question: how it was answered, its accepted answers, the documents that hold one."""

COLUMNS = (
    "answer contained",
    "token F1",
    "citation precision",
    "citation recall",
    "abstains wrongly",
    "abstains rightly",
    "abstention accuracy",
    "abstention ROC area",
)


def answered_rows(name: str, answered: Answered) -> list[Row]:
    """The figures of questions that have an answer; what abstains holds nothing and cites nothing."""
    every = answered.values()
    citing = [(asked, relevant) for asked, _, relevant in every if asked.cited]
    figures: dict[str, Sequence[float]] = {
        "answer contained": [contains(asked.text, wanted) for asked, wanted, _ in every],
        "token F1": [token_f1(asked.claims[0], wanted) if asked.claims else 0.0 for asked, wanted, _ in every],
        "citation precision": [precision(asked.cited, relevant) for asked, relevant in citing],
        "citation recall": [recall(asked.cited, relevant) for asked, _, relevant in every],
        "abstains wrongly": [asked.abstained for asked, _, _ in every],
    }
    return [_mean(metric, name, values) for metric, values in figures.items() if values]


def abstention_rows(name: str, kind: str, answerable: Sequence[Asked], others: Sequence[Asked]) -> list[Row]:
    """How well the answers tell questions with an answer from those without; both kinds count the same."""
    area = roc_area([asked.confidence for asked in answerable], [asked.confidence for asked in others])
    rightly = sum(asked.abstained for asked in others) / len(others)
    kept = sum(not asked.abstained for asked in answerable) / len(answerable)
    subject = f"{name}, {kind}"
    return [
        Row("abstains rightly", subject, rightly, "", len(others)),
        Row("abstention accuracy", subject, (rightly + kept) / 2, "", len(others)),
        Row("abstention ROC area", subject, area, "", len(others)),
    ]


async def evaluate(asking: Asking, folder: Path, judge: Judge | None = None) -> list[Row]:
    """The figures of the folder's questions; printed as they come, the answers themselves kept beside them."""
    labelled, accepted = read_set(folder), read_answers(folder)
    name = labelled.name
    await asking.served.ingest(labelled, name)
    questions = _sample({key: text for key, text in labelled.queries.items() if key in accepted})
    answers = await asking.ask(questions, name)
    rows = answered_rows(
        name, {key: (asked, accepted[key], _relevant(labelled, key)) for key, asked in answers.items()}
    )
    others = {"no answer": await asking.ask(_sample(read_unanswerable(folder)), name)}
    absent, strangers = _apart(labelled, questions)
    if strangers:
        await asking.served.ingest(absent, f"{name}-absent")
        others["other subjects"] = await asking.ask(strangers, f"{name}-absent")
    for kind, found in others.items():
        if found:
            rows += abstention_rows(name, kind, list(answers.values()), list(found.values()))
            _keep(found, f"{name}-{kind.replace(' ', '-')}")
    _keep(answers, name)
    if judge:
        rows += await judged(judge, name, list(answers.values()))
    if judge and os.environ.get("RAGAS") == "1":
        rows += await judged_by_ragas(judge, name, list(answers.values()))
    for row in rows:
        print(f"{row.subject:<40}{row.metric:<24}{row.value:8.4f} of {row.rounds}", flush=True)
    return rows


def _mean(metric: str, subject: str, values: Sequence[float]) -> Row:
    return Row(metric, subject, sum(values) / len(values), "", len(values))


def _relevant(labelled: LabelledSet, query: str) -> list[str]:
    return [document for document, grade in labelled.qrels[query].items() if grade > 0]


def _apart(labelled: LabelledSet, questions: Mapping[str, str]) -> tuple[LabelledSet, dict[str, str]]:
    """The documents of every second title, and the questions that only the other titles answer; none of one title."""
    titles = sorted({document.title for document in labelled.documents.values()})
    kept = {key: document for key, document in labelled.documents.items() if document.title in titles[::2]}
    strange = {key: text for key, text in questions.items() if kept.keys().isdisjoint(_relevant(labelled, key))}
    return replace(labelled, documents=kept), strange if len(titles) > 1 else {}


def _sample(questions: Mapping[str, str]) -> dict[str, str]:
    count = min(int(os.environ.get("QUERIES", len(questions))), len(questions))
    drawn = sorted(random.Random(_SEED).sample(sorted(questions), count))  # noqa: S311 - no secret
    return {key: questions[key] for key in drawn}


def _keep(answers: Mapping[str, Asked], name: str) -> None:
    OUTPUT_FOLDER.mkdir(parents=True, exist_ok=True)
    keep(answers, OUTPUT_FOLDER / f"eval_answers-{name}.jsonl")


async def measure(folders: Sequence[Path]) -> list[Row]:
    """The figures of every folder."""
    judge = Judge.from_environment()
    with tempfile.TemporaryDirectory() as data:
        async with open_asking(Path(data)) as asking:
            return [row for folder in folders for row in await evaluate(asking, folder, judge)]


def main(folders: Sequence[Path]) -> None:
    """Measure, write build/bench/eval_answers.json and, with DOCS=1, the document; raises FolderError, StartError."""
    rows = asyncio.run(measure(folders))
    print(write("eval_answers", rows))
    if os.environ.get("DOCS") == "1":
        before, begin, rest = DOCUMENT.read_text().partition(_BEGIN)
        _, end, after = rest.partition(_END)
        DOCUMENT.write_text(f"{before}{begin}\n{table(rows)}\n{end}{after}")
        CHART.write_text(plot(rows))


def table(rows: Sequence[Row]) -> str:
    """A row for each set, and for each kind of question without an answer."""
    columns = list(dict.fromkeys([*COLUMNS, *(row.metric for row in rows)]))
    lines = [
        f"{machine()}; commit {commit() or 'unknown'}.",
        "",
        f"| set | questions | {' | '.join(columns)} |",
        f"|---|---:|{'---:|' * len(columns)}",
    ]
    for subject in dict.fromkeys(row.subject for row in rows):
        own = {row.metric: row for row in rows if row.subject == subject}
        figures = [f"{own[column].value:.3f}" if column in own else "" for column in columns]
        lines.append(f"| {subject} | {max(row.rounds for row in own.values())} | {' | '.join(figures)} |")
    return "\n".join(lines)


def plot(rows: Sequence[Row]) -> str:
    """What of 0 to 1 is better the higher, by set."""
    groups: dict[str, dict[str, float]] = {}
    for row in rows:
        name, _, kind = row.subject.partition(", ")
        if row.metric != "abstains wrongly" and not (kind and row.metric != "abstention ROC area"):
            groups.setdefault(f"ROC area, {kind}" if kind else row.metric, {})[name] = row.value
    return bars(Bars("answers", groups))


if __name__ == "__main__":
    try:
        main([Path(folder) for folder in sys.argv[1:]])
    except (FolderError, StartError) as error:
        sys.exit(f"eval-answers: {error}")
