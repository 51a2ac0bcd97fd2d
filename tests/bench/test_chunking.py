"""The chunking benchmark: what counts as an answer found, and its table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from bench.chunking import judge, table
from bench.chunking_cases import read_cases
from bench.harness import Row
from ingest_svc.chunking import Chunk
from retriever_svc.index import Place

PASSAGES = [
    {"id": "h1", "title": "Harbour", "text": "The café opens at six."},
    {"id": "h2", "title": "Harbour", "text": "Boats leave at seven. Ferries leave at six."},
    {"id": "m1", "title": "Market", "text": "It opens at six."},
]
QUESTIONS = [{"id": "q1", "text": "When do ferries leave?", "answers": ["six", "at six"]}]


def write_folder(folder: Path, questions: Sequence[Mapping[str, object]]) -> Path:
    """Write the three files; returns the folder."""
    files: dict[str, Sequence[Mapping[str, object]]] = {"corpus": PASSAGES, "queries": questions}
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\th2\t1\n")
    return folder


def test_passages_of_one_title_are_one_document(tmp_path: Path) -> None:
    """And an answer is where it stands in its own passage."""
    cases = read_cases(write_folder(tmp_path, QUESTIONS))
    assert sorted(cases.documents) == ["Harbour", "Market"]
    (question,) = cases.questions
    text = cases.documents["Harbour"].extract.text.encode()
    assert [text[start:end].decode() for start, end in question.answers] == ["six", "at six"]
    assert min(start for start, _ in question.answers) > len(str(PASSAGES[0]["text"]).encode())
    assert [len(cases.half(second=second).questions) for second in (False, True)] == [1, 0]


def test_questions_without_answers_ask_for_their_documents(tmp_path: Path) -> None:
    """Each text is a document then."""
    cases = read_cases(write_folder(tmp_path, [{"id": "q1", "text": "When?", "answers": []}]))
    assert list(cases.documents) == ["h1", "h2", "m1"]
    assert (cases.quoted, cases.questions[0].document) == (False, "h2")


@pytest.mark.parametrize(("first", "expected"), [(0, (0.0, 1.0, 0.0, 1.0)), (1, (1.0, 1.0, 1.0, 1.0))])
def test_an_answer_counts_where_a_chunk_has_all_of_it(
    tmp_path: Path, first: int, expected: tuple[float, float, float, float]
) -> None:
    """In the first chunk, the first five, the first so many tokens; and the document counts by any of its chunks."""
    (question,) = read_cases(write_folder(tmp_path, QUESTIONS)).questions
    start = question.answers[0][0]
    spans = [(0, start + 1), (start - 10, start + 10)]
    chunks = {Place("Harbour", ordinal): Chunk(ordinal, *span, "", (), 0, 200) for ordinal, span in enumerate(spans)}
    found = [Place("Harbour", first), Place("Harbour", 1 - first)]
    assert tuple(judge(question, found, chunks).values()) == expected


def test_the_table_has_a_row_a_strategy() -> None:
    """With the figures that a folder has."""
    rows = [Row("pages recall@5", "token", 0.5, "", 7), Row("pages chunks", "token", 1234.0, "", 7)]
    lines = table(rows).splitlines()
    assert lines[2] == "| pages, 7 questions | document in the first 5 | chunks |"
    assert lines[4] == "| token | 0.500 | 1,234 |"
