"""How often the extractive engine's first quote holds the answer, and how well it knows when there is none.

`python -m bench.extractive FOLDER...`: the questions that bench.extractive_cases reads from each folder, of every two
titles those of the first for tuning (bench.extractive_fit), those of the second held out. Two subjects: words alone,
and words and the encoder, as the local mesh runs the engine.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.extractive_cases import Case, Corpus, Given, Vectorizer, halves
from bench.harness import Row, write
from generator_svc.evidence import Candidate, choose, weigh, weigh_again
from generator_svc.settings import Settings
from generator_svc.terms import is_dense

_MIN_SUPPORT: float = Settings.model_fields["min_support"].default
_CANDIDATES: int = Settings.model_fields["encoder_candidates"].default
_TIMED = 50

Weigh = Callable[[Case], Sequence[Candidate]]


def main(folders: Sequence[Path]) -> None:
    """Measure, print and write build/bench/extractive.json."""
    vectors, rows = Vectorizer(), list[Row]()
    for folder in folders:
        corpus = Corpus.read(folder)
        tuning, held_out = halves(corpus, corpus.cases(vectors))
        ways: dict[str, Weigh] = {"words": _by_words, "words and encoder": _by_meaning(vectors.similarities)}
        fresh: dict[str, Weigh] = {"words": _by_words, "words and encoder": _by_meaning(vectors.similarities_anew)}
        rows += _shown([_speed(f"{folder.name}, {way}", tuning, weighing) for way, weighing in fresh.items()])
        for half, cases in {"tuning": tuning, "held out": held_out}.items():
            for way, weighing in ways.items():
                rows += _shown(_rows(f"{folder.name}, {half}, {way}", cases, weighing))
    print(write("extractive", rows))


def _shown(rows: list[Row]) -> list[Row]:
    for row in rows:
        print(f"{row.subject:<45}{row.metric:<36}{row.value:8.3f} {row.unit} of {row.rounds}", flush=True)
    return rows


def _by_words(case: Case) -> Sequence[Candidate]:
    return weigh(case.question, case.passages)


def _by_meaning(similarities: Callable[[str, Sequence[str]], list[float]]) -> Weigh:
    """As ExtractiveEngine does it, with the encoder in this process."""

    def weighing(case: Case) -> Sequence[Candidate]:
        ranked = _by_words(case)
        if not ranked or is_dense(case.question):
            return ranked
        best = ranked[:_CANDIDATES]
        texts = [candidate.measured.text_in_context for candidate in best]
        return weigh_again(best, similarities(case.question, texts))

    return weighing


def _rows(subject: str, cases: Sequence[Case], weighing: Weigh) -> list[Row]:
    ranked = [(case, weighing(case)) for case in cases]
    answered = [(case, found) for case, found in ranked if case.given is Given.ANSWER]
    first = [bool(found) and _holds(case, found[0]) for case, found in answered]
    given = [any(_holds(case, quote) for quote in choose(found, _MIN_SUPPORT)) for case, found in answered]
    total = len(answered)
    rows = [
        Row("first quote holds the answer", subject, _percent(first), "%", total),
        Row("one of the quotes holds the answer", subject, _percent(given), "%", total),
    ]
    supports = {kind: [_support(found) for case, found in ranked if case.given is kind] for kind in Given}
    for kind, found in supports.items():
        if found:
            abstained = [support < _MIN_SUPPORT for support in found]
            rows.append(Row(f"abstains, {kind.name.lower()}", subject, _percent(abstained), "%", len(found)))
        if found and kind is not Given.ANSWER:
            area = _roc_area(supports[Given.ANSWER], found)
            rows.append(Row(f"ROC area against {kind.name.lower()}", subject, area, "", len(found)))
    return rows


def _speed(subject: str, cases: Sequence[Case], weighing: Weigh) -> Row:
    """The median over answers from different passages, the encoder in this process and nothing remembered."""
    times = []
    for case in list({case.passages[0].text: case for case in cases}.values())[:_TIMED]:
        began_s = time.perf_counter()
        choose(weighing(case), _MIN_SUPPORT)
        times.append(1000 * (time.perf_counter() - began_s))
    return Row("time of an answer", subject, sorted(times)[len(times) // 2], "ms", len(times))


def _holds(case: Case, candidate: Candidate) -> bool:
    return case.held_by(candidate.passage, candidate.quote.text)


def _support(ranked: Sequence[Candidate]) -> float:
    return ranked[0].support if ranked else 0.0


def _percent(outcomes: Sequence[bool]) -> float:
    return 100 * sum(outcomes) / len(outcomes)


def _roc_area(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The probability that a support of the first exceeds one of the second, equals counting half."""
    above = sum((one > other) + (one == other) / 2 for one in positive for other in negative)
    return above / (len(positive) * len(negative))


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
