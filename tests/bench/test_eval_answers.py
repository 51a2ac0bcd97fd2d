"""Answers are measured as the field does, and judged by a model where there is one."""

from pathlib import Path

import pytest

from bench.answer_measures import contains, normalised, precision, recall, roc_area, token_f1
from bench.asking import Asked
from bench.eval_answers import abstention_rows, answered_rows, plot, table
from bench.labelled import FolderError, read_answers, read_unanswerable

QUOTED = Asked(
    "When?", "It opened in 1912. [1]", False, ("It opened in 1912.",), ("d1",), (1.0,), ("It opened.",), (0.9,)
)
SILENT = Asked("Who?", "", True, (), (), (), ("It opened.",), (0.4,))


def test_text_is_normalised_as_squad_does() -> None:
    """Case, punctuation and articles go; signs of Chinese are words."""
    assert normalised("The  U.S. (An) apple!") == "us apple"
    assert normalised("二十五天。") == "二 十 五 天"


def test_answer_is_contained_by_words() -> None:
    """Not as a part of one."""
    assert contains("It rose to nearly $12, they say. [1]", ["nearly $12"])
    assert not contains("It rose to 120.", ["12"])
    assert contains("年假为二十五天。", ["二十五天"])
    assert not contains("Anything", ["the", ""])


def test_token_f1_is_that_of_the_best_answer() -> None:
    """Twice the words shared by the words of both."""
    assert token_f1("in the October of 1973", ["1973", "October 1973"]) == pytest.approx(2 * 2 / (4 + 2))
    assert token_f1("nothing", ["1973"]) == 0.0
    assert token_f1("1973", []) == 0.0


def test_citations_are_measured_by_document() -> None:
    """Each document counts once."""
    assert precision(["a", "a", "b"], ["a"]) == 0.5
    assert recall(["a", "b"], ["a", "c"]) == 0.5


def test_roc_area_counts_equals_half() -> None:
    """As the probability that the one exceeds the other."""
    assert roc_area([2, 1], [1, 0]) == pytest.approx(3.5 / 4)


def test_abstention_is_judged_by_what_answers_say_of_themselves() -> None:
    """An answer that abstains is surest to be none; both kinds of question count the same."""
    rows = {row.metric: row.value for row in abstention_rows("s", "no answer", [QUOTED, QUOTED], [SILENT, QUOTED])}
    assert rows == {"abstains rightly": 0.5, "abstention accuracy": 0.75, "abstention ROC area": 0.75}


def test_figures_are_shown_by_set() -> None:
    """In a table and as bars; what is not measured of a kind stays empty."""
    rows = answered_rows("s", {"q1": (QUOTED, ("1912",), ("d1",)), "q2": (SILENT, ("Ann",), ("d2",))})
    assert {row.metric: row.value for row in rows} == {
        "answer contained": 0.5,
        "token F1": pytest.approx(0.2),
        "citation precision": 1.0,
        "citation recall": 0.5,
        "abstains wrongly": 0.5,
    }
    rows += abstention_rows("s", "no answer", [QUOTED], [SILENT])
    *_, answered, unanswerable = table(rows).splitlines()
    assert answered == "| s | 2 | 0.500 | 0.200 | 1.000 | 0.500 | 0.500 |  |  |  |"
    assert unanswerable == "| s, no answer | 1 |  |  |  |  |  | 1.000 | 1.000 | 1.000 |"
    assert "ROC area, no answer" in plot(rows)


def test_answers_and_unanswerable_questions_are_read(tmp_path: Path) -> None:
    """From the files beside the corpus; a folder without answers is told of."""
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"id": "q1", "text": "a", "answers": ["x", "y"]}\n{"id": "q2", "text": "b"}\n')
    assert read_answers(tmp_path) == {"q1": ("x", "y")}
    assert read_unanswerable(tmp_path) == {}
    (tmp_path / "unanswerable.jsonl").write_text('{"id": "u1", "text": "c"}\n')
    assert read_unanswerable(tmp_path) == {"u1": "c"}
    queries.write_text('{"id": "q1", "text": "a"}\n')
    with pytest.raises(FolderError, match="has no answers"):
        read_answers(tmp_path)
