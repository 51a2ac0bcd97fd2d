"""How well the grounding score tells what passages say from what they do not, and what it costs.

`python -m bench.eval_grounding FOLDER...`, in English: a claim is a question with its accepted answer in the place of
its question word, so that it says in other words what a passage says. It is held against that passage and seven more of
its title; so is the same claim with an answer that the passage does not have, and a sentence of a passage that was not
shown. DOCS=1 writes docs/quality.md.
"""

from __future__ import annotations

import os
import random
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.answer_measures import roc_area
from bench.eval_answers import DOCUMENT
from bench.harness import Row, commit, machine, write
from bench.labelled import FolderError, LabelledSet, read_answers, read_set
from gateway.grounding import Grounder
from gateway.retrieval import Chunk, Hit, Span
from gateway.sentences import sentences
from gateway.settings import Settings

_BEGIN, _END = "<!-- eval:grounding -->", "<!-- /eval:grounding -->"
_MIN_SCORE: float = Settings.model_fields["min_grounding"].default
_SHOWN = 8
_CLAIMS = 1000
_SEED = 0
_SENTENCE_CHARS = 40
_ASKED = re.compile(r"\b(?:what|which|who|whom|how many|how much|when|where|why|how)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Example:
    """A passage among others, and what it does and does not say."""

    shown: Mapping[int, Hit]
    right: str
    wrong: str
    elsewhere: str


def examples(labelled: LabelledSet, accepted: Mapping[str, tuple[str, ...]]) -> Iterator[Example]:
    """So many of the set's questions, drawn by a seed; those left out whose title has nothing to be wrong with."""
    chance = random.Random(_SEED)  # noqa: S311 - no secret
    own = {query: max(judged, key=judged.__getitem__) for query, judged in labelled.qrels.items() if query in accepted}
    titles, answers = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for key, document in labelled.documents.items():
        titles[document.title].append(key)
    for query, key in own.items():
        answers[labelled.documents[key].title].append(accepted[query][0])
    for query in chance.sample(sorted(own), min(_CLAIMS, len(own))):
        passage = labelled.documents[own[query]]
        others = [key for key in titles[passage.title] if key != own[query]]
        wrong = [answer for answer in answers[passage.title] if answer not in passage.text]
        if not (others and wrong):
            continue
        away, *near = chance.sample(others, min(_SHOWN, len(others)))
        unseen = [each for each in sentences(labelled.documents[away].text) if len(each) > _SENTENCE_CHARS]
        texts = [passage.text, *(labelled.documents[key].text for key in near)]
        shown = {number: _hit(number, text, passage.title) for number, text in enumerate(texts, start=1)}
        right, other = (_claim(labelled.queries[query], each) for each in (accepted[query][0], chance.choice(wrong)))
        yield Example(shown, right, other, chance.choice(unseen or [labelled.documents[away].text]))


def _hit(number: int, text: str, title: str) -> Hit:
    return Hit(Chunk(str(number), "d", text, Span(0, len(text.encode())), number, title=title), 1.0)


def _claim(question: str, answer: str) -> str:
    asked = question.strip(" ?")
    said = _ASKED.sub(lambda _: answer, asked, count=1)
    said = said if said != asked else f"{asked} {answer}"
    return f"{said[0].upper()}{said[1:]}."


def grade(example: Example, text: str) -> float:
    """The score of the text, whose sentences are one claim."""
    grounder = Grounder(example.shown, _MIN_SCORE)
    return max((each.score for each in (*grounder.feed(text), *grounder.rest())), default=0.0)


def figures(name: str, given: Sequence[Example]) -> list[Row]:
    """ROC areas, the shares at the shipped bound, and the time of a sentence."""
    right = [grade(example, example.right) for example in given]
    others = {
        "another answer": [grade(example, example.wrong) for example in given],
        "a sentence not shown": [grade(example, example.elsewhere) for example in given],
    }
    rows = [Row("supported", f"{name}, the answer", _share(right), "", len(right))]
    for kind, scores in others.items():
        rows.append(Row("supported", f"{name}, {kind}", _share(scores), "", len(scores)))
        rows.append(Row("ROC area", f"{name}, {kind}", roc_area(right, scores), "", len(scores)))
    quoted = [next(sentences(example.shown[1].chunk.text)).strip() + " [1] " for example in given]
    cited = [f"{example.right} [1] " for example in given]
    for kind, texts in {"quoted": quoted, "reworded and cited": cited}.items():
        rows.append(Row("CPU time of a sentence", f"{name}, {kind}", _median_ms(given, texts), "ms", len(texts)))
    first = [_ms(lambda each=each: grade(each, each.right)) for each in given]  # type: ignore[misc]
    rows.append(
        Row("CPU time of a sentence", f"{name}, reworded, uncited, the first", _median(first), "ms", len(first))
    )
    return rows


def _share(scores: Sequence[float]) -> float:
    return sum(score >= _MIN_SCORE for score in scores) / len(scores)


def _median_ms(given: Sequence[Example], texts: Sequence[str]) -> float:
    """Fed word by word, from the second sentence of an answer on."""
    times = []
    for example, text in zip(given, texts, strict=True):
        grounder, words = Grounder(example.shown, _MIN_SCORE), re.findall(r"\s*\S+", text)
        grounder.feed(text * 2)
        times.append(_ms(lambda grounder=grounder, words=words: [grounder.feed(word) for word in words]))  # type: ignore[misc]
    return _median(times)


def _ms(work: Callable[[], object]) -> float:
    began_s = time.process_time()
    work()
    return 1000 * (time.process_time() - began_s)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def main(folders: Sequence[Path]) -> None:
    """Measure, print, write build/bench/eval_grounding.json and, with DOCS=1, the document; raises FolderError."""
    rows = list[Row]()
    for folder in folders:
        labelled = read_set(folder)
        rows += figures(labelled.name, list(examples(labelled, read_answers(folder))))
    print(table(rows))
    print(write("eval_grounding", rows))
    if os.environ.get("DOCS") == "1":
        before, begin, rest = DOCUMENT.read_text().partition(_BEGIN)
        _, end, after = rest.partition(_END)
        DOCUMENT.write_text(f"{before}{begin}\n{table(rows)}\n{end}{after}")


def table(rows: Sequence[Row]) -> str:
    """A row for each kind of claim."""
    columns = list(dict.fromkeys(f"{row.metric}{', ' * bool(row.unit)}{row.unit}" for row in rows))
    lines = [
        f"{machine()}; commit {commit() or 'unknown'}.",
        "",
        f"| claims | number | {' | '.join(columns)} |",
        f"|---|---:|{'---:|' * len(columns)}",
    ]
    for subject in dict.fromkeys(row.subject for row in rows):
        own = {f"{row.metric}{', ' * bool(row.unit)}{row.unit}": row for row in rows if row.subject == subject}
        figures = [f"{own[column].value:.3f}" if column in own else "" for column in columns]
        lines.append(f"| {subject} | {max(row.rounds for row in own.values())} | {' | '.join(figures)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main([Path(folder) for folder in sys.argv[1:]])
    except FolderError as error:
        sys.exit(f"eval-grounding: {error}")
