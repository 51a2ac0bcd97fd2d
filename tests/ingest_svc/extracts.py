"""Extracts of made-up documents, and how strategies cut them, for tests."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from ingest_svc.chunking import Chunk, Encoded, Strategy
from ingest_svc.extract import BlockKind, Extract, Writer
from tests.ingest_svc.words import token_ends

DIMENSION = 4
_WORDS = ["word", "longer", "字", "符", "。", ". ", " ", " ", "\n", "é", "🙂", "!", "\t", "a" * 90, "x.y", "\u0301" * 9]
_UNSPACED = ["ที่นี่", "น้ำ", "กิน", "かな", "カナ", "漢", "。", "ไม่", "\n"]
TEXTS = st.one_of(*(st.lists(st.sampled_from(words), max_size=120).map("".join) for words in (_WORDS, _UNSPACED)))
BLOCKS = st.lists(st.tuples(st.sampled_from([*BlockKind]), TEXTS, st.integers(1, 4)), max_size=12)
"""Blocks as kind, text and heading level; at level 4 a page begins."""


def extract_of(blocks: Sequence[tuple[BlockKind, str, int]], paged: bool = False) -> Extract:
    """The extract of blocks given as kind, text and heading level."""
    writer = Writer()
    writer.page = int(paged)
    for kind, text, level in blocks:
        writer.page += paged and level == 4
        if kind is BlockKind.HEADING:
            writer.heading(level, text)
        else:
            writer.block(text, kind)
    return writer.extract("text/plain", "test 1")


def cut(strategy: Strategy, extract: Extract, **parameters: Any) -> list[Chunk]:
    """The chunks of the extract, its probes encoded by `vectors`."""
    values = strategy.parameters(**parameters)
    probes = strategy.probes(extract, values)
    assert all(probes)
    return strategy.cut(extract, Encoded(token_ends(extract.text), vectors(probes)), values)


def vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    """A vector for each text, made of its hash."""
    rows = [np.frombuffer(hashlib.sha256(text.encode()).digest()[:DIMENSION], np.uint8) for text in texts]
    return np.array(rows, np.float32).reshape(len(texts), DIMENSION) - 127.5
