"""Documents to cut and the questions that are asked of them, for the chunking benchmark.

A folder holds corpus.jsonl {id, title, text}, queries.jsonl {id, text, answers} and qrels.tsv. Where questions have
answers, the passages of one title are one document, parted by blank lines, as a page that people write is; else each
text is a document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest_svc.chunking import Chunk
from ingest_svc.extract import Extract, Source
from ingest_svc.parsing.reading import read

_MAX_TEXT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed document under its title."""

    title: str
    extract: Extract


@dataclass(frozen=True, slots=True)
class Question:
    """A question about one document; `answers` are the bytes of its text where an answer stands in the passage."""

    text: str
    document: str
    answers: tuple[tuple[int, int], ...]

    def answered_by(self, document: str, chunk: Chunk) -> bool:
        """Whether a chunk of a document holds a whole answer."""
        return document == self.document and any(
            chunk.start <= start and end <= chunk.end for start, end in self.answers
        )


@dataclass(frozen=True, slots=True)
class Cases:
    """The documents of a folder by id, and the questions."""

    name: str
    documents: Mapping[str, Document]
    questions: Sequence[Question]

    @property
    def quoted(self) -> bool:
        """Whether it is known where the answers stand."""
        return any(question.answers for question in self.questions)

    def half(self, *, second: bool) -> Cases:
        """All documents, and the questions of every second one."""
        kept = set(sorted(self.documents)[second::2])
        return Cases(self.name, self.documents, [asked for asked in self.questions if asked.document in kept])


def read_cases(folder: Path) -> Cases:
    """The documents and questions of a folder."""
    passages = {row["id"]: row for row in _lines(folder / "corpus.jsonl") if row["text"].strip()}
    asked = {row["id"]: row for row in _lines(folder / "queries.jsonl")}
    judged = [line.split("\t") for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    pairs = [
        (asked[query], passages[passage]) for query, passage, grade in judged if int(grade) and passage in passages
    ]
    if any(question.get("answers") for question, _ in pairs):
        return _glued(folder.name, passages, pairs)
    documents = {key: _document(row["title"], row["text"], f"{key}.md") for key, row in passages.items()}
    questions = [Question(question["text"], passage["id"], ()) for question, passage in pairs]
    return Cases(folder.resolve().parent.name, documents, questions)


def _glued(
    name: str, passages: Mapping[str, Mapping[str, Any]], pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> Cases:
    titles: dict[str, list[str]] = {}
    for row in passages.values():
        titles.setdefault(row["title"], []).append(row["text"])
    documents = {title: _document(title, "\n\n".join(texts), "page.txt") for title, texts in titles.items()}
    questions = [
        Question(question["text"], passage["title"], tuple(_answers(question, passage, documents[passage["title"]])))
        for question, passage in pairs
    ]
    return Cases(name, documents, questions)


def _document(title: str, text: str, uri: str) -> Document:
    return Document(title, read(Source(text.encode(), uri), _MAX_TEXT_BYTES))


def _answers(question: Mapping[str, Any], passage: Mapping[str, Any], document: Document) -> Iterator[tuple[int, int]]:
    """Where the answers stand in the passage, as bytes of the document's text."""
    whole = document.extract.text
    first = whole.find(passage["text"].strip())
    base = len(whole[:first].encode())
    for answer in question["answers"] if first >= 0 else ():
        for found in re.finditer(re.escape(answer), passage["text"].strip()):
            start = base + len(passage["text"].strip()[: found.start()].encode())
            yield start, start + len(answer.encode())


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
