"""Which chunking suits a kind of document, its content and a use: few rules, each with its reason."""

import re
from typing import Any

from ingest_svc.chunking import Choice, Chunking
from ingest_svc.parsing import detection
from ingest_svc.parsing.languages import BY_MEDIA_TYPE, language_of

_SHORT_ANSWERS = re.compile(r"\b(faq|q&a|question|support|chat|lookup|fact|glossary)|问答|客服", re.IGNORECASE)
_LONG_CONTEXT = re.compile(r"\b(summar|report|legal|contract|research|narrative|analysis)|摘要|合同", re.IGNORECASE)
_HEADING = re.compile(r"^#{1,6} |<h[1-6]\b", re.MULTILINE)
_CODE = re.compile(
    r"^(?:\s*(?:def|class|import|from|func|package|public|const|var|#include)\b|.*[;{}]\s*$)", re.MULTILINE
)
_CODE_SHARE = 0.3
_HEAD_CHARS = 4096
# What prose is given as, or a text of which nobody says what it is.
_UNTOLD = ("", detection.PLAIN)
_TABLES = (detection.CSV, detection.XLSX, detection.XLSB, detection.XLS, detection.ODS)
_HEADED = (detection.MARKDOWN, detection.HTML, detection.DOCX, detection.EPUB, detection.RTF)
_REASONS = {
    "code": "Program text is cut between its definitions, each chunk under the names around it; nothing is repeated, "
    "which would only blur what is where.",
    "table": "Rows of a table are kept whole, under the names of its columns.",
    "paged": "Its pages or slides are kept apart, so that each chunk has one page to cite.",
    "headed": "Its headings part the text first, small sections are joined, and each chunk carries those above it.",
    "prose": "Text without marks of structure is parted at paragraphs and sentences, and the end of a chunk repeated.",
}


def recommend(media_type: str, sample: str, use_case: str) -> Choice:
    """A strategy with its parameters, and why; `sample` is the beginning of the document's text."""
    kind = _kind(media_type, sample)
    max_tokens, reason = _size(use_case)
    parameters: dict[str, Any] = {"max_tokens": max_tokens, "overlap_tokens": 0 if kind == "code" else max_tokens // 6}
    strategy = {"code": "code", "prose": "recursive"}.get(kind, "format")
    return Choice(Chunking(strategy=strategy, parameters=parameters), f"{_REASONS[kind]} {reason}")


def _kind(media_type: str, sample: str) -> str:
    """A key of the reasons."""
    if media_type in BY_MEDIA_TYPE or (media_type in _UNTOLD and _is_code(sample)):
        return "code"
    if media_type in _TABLES:
        return "table"
    if media_type in (detection.PDF, detection.PPTX):
        return "paged"
    if media_type in _HEADED or (media_type in _UNTOLD and _HEADING.search(sample)):
        return "headed"
    return "prose"


def _size(use_case: str) -> tuple[int, str]:
    """The most tokens of a chunk, and why."""
    if _SHORT_ANSWERS.search(use_case):
        return 120, "Short facts are found best in small chunks."
    if _LONG_CONTEXT.search(use_case):
        return 240, "Long arguments need chunks that hold more of their context."
    return 180, "Chunks of 180 tokens leave room for their headings in an encoder that reads 256."


def _is_code(sample: str) -> bool:
    lines = [line for line in sample.splitlines() if line.strip()]
    dense = bool(lines) and len(_CODE.findall(sample)) > len(lines) * _CODE_SHARE
    return dense or language_of(sample[:_HEAD_CHARS], "") is not None
