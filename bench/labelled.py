"""Labelled questions over documents, as a folder in BEIR's form holds them.

corpus.jsonl has a line {"id", "title", "text"} a document, queries.jsonl {"id", "text"} a query, and qrels.tsv, below a
heading, the query's id, the document's and a grade: 0 for not relevant, more for more. `_id` is taken for `id`. Where
answers are judged a query has `answers` too, and unanswerable.jsonl {"id", "text"} what the corpus does not answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FILES = ("corpus.jsonl", "queries.jsonl", "qrels.tsv")
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_HAN_SHARE = 0.2
_COLUMNS = 3


class FolderError(Exception):
    """A folder is no labelled set; the words say which file and line, and why."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document of the corpus."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Documents and queries by id, and for each query the grades of the documents that were judged.

    A document may be empty, as BEIR's may; of the queries those are left out that ask nothing.
    """

    name: str
    documents: Mapping[str, Document]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]

    @property
    def language(self) -> str:
        """`chinese` where the queries are in such characters, else `english`, as a collection has it."""
        asked = "".join(self.queries.values())
        return "chinese" if len(_HAN.findall(asked)) > _HAN_SHARE * len(asked) else "english"


def read_set(folder: Path) -> LabelledSet:
    """The set in the folder, with the queries that ask something and have a relevant document; raises FolderError."""
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise FolderError(f"{folder} has no {' and no '.join(missing)}")
    corpus, queries, qrels = (folder / name for name in _FILES)
    documents = {key: Document(str(row.get("title") or ""), row["text"]) for key, row in _rows(corpus)}
    texts = {key: str(row["text"]) for key, row in _rows(queries)}
    graded = _grades(qrels, texts, documents)
    grades = {query: judged for query, judged in graded.items() if max(judged.values()) > 0 and texts[query].strip()}
    if not grades:
        raise FolderError(f"{qrels} names no relevant document")
    name = "-".join(folder.resolve().parts[-2:]) if folder.name == "known-item" else folder.resolve().name
    return LabelledSet(name, documents, {query: texts[query] for query in grades}, grades)


def read_answers(folder: Path) -> Mapping[str, tuple[str, ...]]:
    """The accepted answers of each query that has some; raises FolderError."""
    rows = {key: row.get("answers", ()) for key, row in _rows(folder / "queries.jsonl")}
    found = {key: tuple(map(str, answers)) for key, answers in rows.items() if isinstance(answers, list) and answers}
    if not found:
        raise FolderError(f"{folder / 'queries.jsonl'} has no answers")
    return found


def read_unanswerable(folder: Path) -> Mapping[str, str]:
    """The questions that the corpus does not answer; none where the folder has no unanswerable.jsonl."""
    file = folder / "unanswerable.jsonl"
    return {key: str(row["text"]) for key, row in _rows(file)} if file.is_file() else {}


def _rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    seen: set[str] = set()
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            key = str(row.get("id", row.get("_id", "")))
            text = row["text"]
        except (ValueError, KeyError, AttributeError):
            raise FolderError(f"{file}:{number} is no JSON object with id and text") from None
        if not key or key in seen or not isinstance(text, str):
            raise FolderError(f"{file}:{number} has no id, one that came before, or no text")
        seen.add(key)
        yield key, row


def _grades(file: Path, queries: Mapping[str, Any], documents: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """By query and document; the first line is a heading."""
    found: dict[str, dict[str, int]] = {}
    for number, line in enumerate(file.read_text().splitlines()[1:], start=2):
        columns = line.split("\t")
        if len(columns) != _COLUMNS or not columns[2].strip().isdecimal():
            raise FolderError(f"{file}:{number} is no query-id, corpus-id and grade, parted by tabs")
        query, document, grade = columns
        if query not in queries or document not in documents:
            raise FolderError(f"{file}:{number} names a query or a document that is not there")
        found.setdefault(query, {})[document] = int(grade)
    return found
