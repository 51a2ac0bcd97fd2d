"""Labelled sets, their measures, and that hybrid search ranks no worse than the better of its halves."""

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from bench.eval_retrieval import MODES, difference, measured, plot, table
from bench.harness import Row
from bench.labelled import FolderError, LabelledSet, read_set
from bench.retrieval import open_served

SQUAD = Path(__file__).parents[3] / "shared" / "data" / "squad-dev10"
CORPUS = '{"id": "d1", "title": "Harbour", "text": "It opens at six."}\n{"_id": "d2", "text": ""}\n'
QUERIES = '{"id": "q1", "text": "When does it open?"}\n{"id": "q2", "text": "Who knows?"}\n'
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n"


def write_set(folder: Path, corpus: str = CORPUS, queries: str = QUERIES, qrels: str = QRELS) -> Path:
    """Write the files; returns the folder."""
    for name, text in {"corpus.jsonl": corpus, "queries.jsonl": queries, "qrels.tsv": qrels}.items():
        (folder / name).write_text(text)
    return folder


def test_a_folder_is_read(tmp_path: Path) -> None:
    """Documents by id, and the queries that something is relevant to."""
    labelled = read_set(write_set(tmp_path))
    assert {key: document.title for key, document in labelled.documents.items()} == {"d1": "Harbour", "d2": ""}
    assert labelled.queries == {"q1": "When does it open?"}
    assert labelled.qrels == {"q1": {"d1": 1, "d2": 0}}
    assert labelled.language == "english"


def test_a_query_that_asks_nothing_is_left_out(tmp_path: Path) -> None:
    """No search can answer it."""
    empty = QUERIES.replace("Who knows?", " ")
    labelled = read_set(write_set(tmp_path, queries=empty, qrels=QRELS + "q2\td1\t1\n"))
    assert list(labelled.queries) == list(labelled.qrels) == ["q1"]


@pytest.mark.parametrize(
    ("part", "text", "words"),
    [
        ("corpus", '{"id": "d1"}', "corpus.jsonl:1 is no JSON object"),
        ("corpus", "[]", "corpus.jsonl:1 is no JSON object"),
        ("corpus", CORPUS + CORPUS, "corpus.jsonl:3 has no id, one that came before"),
        ("queries", '{"id": "", "text": "a"}', "queries.jsonl:1 has no id"),
        ("qrels", "head\nq1 d1 1\n", r"qrels.tsv:2 is no query-id"),
        ("qrels", "head\nq1\td9\t1\n", r"qrels.tsv:2 names a query or a document that is not there"),
        ("qrels", "head\nq1\td1\t0\n", "names no relevant document"),
    ],
)
def test_what_is_wrong_in_a_folder_is_told(part: str, text: str, words: str, tmp_path: Path) -> None:
    """With the file and the line."""
    with pytest.raises(FolderError, match=words):
        read_set(write_set(tmp_path, **{part: text}))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """By its name."""
    write_set(tmp_path)
    (tmp_path / "qrels.tsv").unlink()
    with pytest.raises(FolderError, match=r"has no qrels\.tsv"):
        read_set(tmp_path)


def test_measures_are_those_of_the_field() -> None:
    """By rank and query, also for a query that found nothing."""
    qrels = {"first": {"a": 1}, "second": {"a": 1}, "sixth": {"a": 1}, "nothing": {"a": 1}}
    ranked = {"first": ["a", "b"], "second": ["b", "a"], "sixth": [*"bcdef", "a"], "nothing": list[str]()}
    values = measured(qrels, ranked)
    assert values["nDCG@10"] == pytest.approx([1, 1 / math.log2(3), 1 / math.log2(7), 0])
    assert values["recall@5"] == [1, 1, 0, 0]
    assert values["recall@20"] == [1, 1, 1, 0]
    assert values["MRR"] == pytest.approx([1, 1 / 2, 1 / 6, 0])


def test_a_difference_has_an_interval() -> None:
    """One that is the same for every query has no width; noise has zero within."""
    assert difference([0.5, 0.75], [0.25, 0.5]) == (0.25, 0.25, 0.25)
    noise = np.random.default_rng(1).normal(size=200)
    _, low, high = difference(noise.tolist(), [0.0] * 200)
    assert low < 0 < high


def test_figures_are_shown_by_set_and_mode() -> None:
    """In a table and as bars."""
    names = ("nDCG@10", "recall@5", "recall@20", "MRR")
    rows = [Row(f"squad {name}", mode, 0.5, "", 7) for mode in ("dense", "hybrid") for name in names]
    margin = ("over the better half", "at least", "at most")
    rows += [Row(f"squad {name}", "hybrid", value, "", 7) for name, value in zip(margin, (0.1, 0, 0.2), strict=True)]
    hybrid = table(rows).splitlines()[-1]
    assert hybrid == "| squad | 7 | hybrid | 0.500 | 0.500 | 0.500 | 0.500 | +0.100 (+0.000 to +0.200) |"
    drawn = plot(rows)
    assert drawn.startswith("<svg")
    assert drawn.count("0.500</text>") == 2


@pytest.mark.timeout(240)
@pytest.mark.skipif(not SQUAD.exists(), reason="the questions are not part of the project")
async def test_hybrid_ranks_no_worse_than_the_better_half(tmp_path: Path) -> None:
    """On a sample of real questions, by the services as they are served."""
    labelled = sample(read_set(SQUAD), documents=60, queries=100)
    async with open_served(tmp_path) as served:
        await served.ingest(labelled, "squad")
        ndcg = {}
        for mode in ("dense", "sparse", "hybrid"):
            found = await served.search(labelled, "squad", **MODES[mode])
            values = measured(labelled.qrels, {query: hits.documents for query, hits in found.items()})
            ndcg[mode] = float(np.mean(values["nDCG@10"]))
    assert ndcg["hybrid"] >= max(ndcg["dense"], ndcg["sparse"]) > 0.8, ndcg


def sample(labelled: LabelledSet, documents: int, queries: int) -> LabelledSet:
    """The first documents, and the first queries that these answer."""
    kept = dict(islice(labelled.documents.items(), documents))
    answered = [query for query, judged in labelled.qrels.items() if judged.keys() <= kept.keys()][:queries]
    return replace(
        labelled,
        documents=kept,
        queries={query: labelled.queries[query] for query in answered},
        qrels={query: labelled.qrels[query] for query in answered},
    )
