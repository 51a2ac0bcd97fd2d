"""The texts that the embedding benchmark encodes: passages and short questions, drawn anew each round."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

PASSAGE_WORDS = range(90, 196)
"""Drawn evenly; of English Wikipedia these are 185 tokens on average."""
QUESTION_WORDS = range(4, 10)
MAX_TOKENS = 250
"""Below the model's limit of 256, where the subjects would cut in ways of their own."""
_MADE_UP_WORDS, _COMMON_SHARE = 40_000, 0.8
_COMMON = ("the", "river", "of", "an", "old", "town", "and", "its", "harbour", "was", "built", "in", "stone", "by")
_SYLLABLES = ("ba", "ren", "to", "ling", "mar", "ke", "so", "vin", "pel", "du", "ster", "al")


class Texts:
    """Draws texts from one run of words, from another place each time; the same seed draws the same texts."""

    def __init__(self, words: Sequence[str], tokenizer: Tokenizer, seed: int) -> None:
        self._words = words
        self._tokenizer = tokenizer
        self._random = random.Random(seed)  # noqa: S311 - no secret

    def passages(self, count: int) -> list[str]:
        """Passages of up to MAX_TOKENS tokens."""
        return [self._cut(self._draw(PASSAGE_WORDS)) for _ in range(count)]

    def questions(self, count: int) -> list[str]:
        """Short questions."""
        return [f"What is said of {self._draw(QUESTION_WORDS)}?" for _ in range(count)]

    def tokens(self, texts: Sequence[str]) -> int:
        """The tokens of the texts, special ones included."""
        return sum(len(encoding) for encoding in self._tokenizer.encode_batch_fast(list(texts)))

    def _draw(self, lengths: range) -> str:
        length = self._random.choice(lengths)
        start = self._random.randrange(len(self._words) - length)
        return " ".join(self._words[start : start + length])

    def _cut(self, text: str) -> str:
        ends = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return text if len(ends) <= MAX_TOKENS - 2 else text[: ends[MAX_TOKENS - 3][1]]


def open_texts(folder: Path, tokenizer: Path, seed: int) -> Texts:
    """Texts of the folder's `corpus.jsonl`, or made-up ones where there is none; `tokenizer` is a tokenizer.json."""
    model = Tokenizer.from_file(str(tokenizer))
    model.no_truncation()
    model.no_padding()
    corpus = folder / "corpus.jsonl"
    return Texts(_words(corpus) if corpus.exists() else _made_up(), model, seed)


def _words(corpus: Path) -> list[str]:
    with corpus.open(encoding="utf-8") as lines:
        return [word for line in lines for word in json.loads(line)["text"].split()]


def _made_up() -> list[str]:
    """Common words, and among them names of two syllables, from a fixed seed: as many tokens a word as in prose."""
    draw = random.Random(0)  # noqa: S311 - no secret
    return [
        draw.choice(_COMMON) if draw.random() < _COMMON_SHARE else "".join(draw.choices(_SYLLABLES, k=2))
        for _ in range(_MADE_UP_WORDS)
    ]
