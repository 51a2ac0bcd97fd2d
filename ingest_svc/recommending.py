"""Which chunking suits a kind of document and a use: few rules, each with its reason."""

import re
from typing import Any

_SHORT_ANSWERS = re.compile(r"\b(faq|q&a|question|support|chat|lookup|fact|glossary|问答|客服)", re.IGNORECASE)
_LONG_CONTEXT = re.compile(r"\b(summar|report|legal|contract|research|narrative|analysis|摘要|合同)", re.IGNORECASE)
_HEADING = re.compile(r"^#{1,6} |<h[1-6]\b", re.MULTILINE)
_CODE = re.compile(
    r"^(?:\s*(?:def|class|import|from|func|package|public|const|var|#include)\b|.*[;{}]\s*$)", re.MULTILINE
)
_CODE_SHARE = 0.3


def recommend(media_type: str, sample: str, use_case: str) -> tuple[str, dict[str, Any], str]:
    """The strategy's name, its parameters, and why."""
    max_tokens, overlap_tokens, reasons = 180, 30, []
    if _SHORT_ANSWERS.search(use_case):
        max_tokens, overlap_tokens = 120, 20
        reasons.append("Short facts are found best in small chunks.")
    elif _LONG_CONTEXT.search(use_case):
        max_tokens, overlap_tokens = 240, 40
        reasons.append("Long arguments need chunks that hold more of their context.")
    else:
        reasons.append("Chunks of 180 tokens leave room for their headings in an encoder that reads 256.")
    if media_type == "application/pdf":
        overlap_tokens = max_tokens // 4
        reasons.append("A PDF does not mark its paragraphs, so chunks overlap more.")
    elif _is_code(sample):
        overlap_tokens = 0
        reasons.append("Program text is cut between lines; repeating lines would only blur what is where.")
    elif _HEADING.search(sample):
        reasons.append("The headings part the text first, and each chunk carries those above it.")
    return "recursive", {"max_tokens": max_tokens, "overlap_tokens": overlap_tokens}, " ".join(reasons)


def _is_code(sample: str) -> bool:
    lines = [line for line in sample.splitlines() if line.strip()]
    return len(_CODE.findall(sample)) > len(lines) * _CODE_SHARE if lines else False
