"""What is measured of answers: SQuAD's containment and token F1, citations against judged documents, abstention."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_HAN = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])")
_PUNCTUATION = re.compile(rf"[{re.escape(string.punctuation)}“”‘’–—，。！？；：、（）《》「」]")  # noqa: RUF001


def normalised(text: str) -> str:
    """As SQuAD's evaluation: lower case, without punctuation and articles; signs of Chinese and Japanese are words."""
    plain = _PUNCTUATION.sub(" " if _HAN.search(text) else "", unicodedata.normalize("NFKC", text).lower())
    return " ".join(_ARTICLES.sub(" ", _HAN.sub(r" \1 ", plain)).split())


def contains(text: str, answers: Sequence[str]) -> bool:
    """Whether one of the answers stands in the text."""
    within = f" {normalised(text)} "
    return any(f" {wanted} " in within for answer in answers if (wanted := normalised(answer)))


def token_f1(text: str, answers: Sequence[str]) -> float:
    """The greatest F1 of the text's words and an answer's."""
    return max((_f1(normalised(text).split(), normalised(answer).split()) for answer in answers), default=0.0)


def _f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    shared = sum((Counter(said) & Counter(wanted)).values())
    return 2 * shared / (len(said) + len(wanted)) if shared else 0.0


def precision(cited: Collection[str], relevant: Collection[str]) -> float:
    """The share of the documents cited that are relevant; some must be cited."""
    return len(set(cited) & set(relevant)) / len(set(cited))


def recall(cited: Collection[str], relevant: Collection[str]) -> float:
    """The share of the relevant documents that are cited."""
    return len(set(cited) & set(relevant)) / len(set(relevant))


def roc_area(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The probability that a score of the first exceeds one of the second, equals counting half."""
    ranked = np.sort(np.asarray(negative))
    below = np.searchsorted(ranked, positive, side="left")
    up_to = np.searchsorted(ranked, positive, side="right")
    return float((below + up_to).mean() / 2 / len(negative))
