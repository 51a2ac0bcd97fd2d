"""Recursive chunking, by property and by example."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ingest_svc.chunking import Chunk, Encoded
from ingest_svc.extract import BlockKind, Extract, Writer
from ingest_svc.strategies.recursive import RecursiveParameters, RecursiveStrategy
from tests.ingest_svc.words import token_ends

ALPHABET = st.sampled_from(
    ["word", "longer", "字", "符", "。", ". ", " ", " ", "\n", "é", "🙂", "!", "\t", "a" * 90, "x.y"]
)
TEXTS = st.lists(ALPHABET, max_size=120).map("".join)
BLOCKS = st.lists(st.tuples(st.sampled_from([*BlockKind]), TEXTS, st.integers(1, 4)), max_size=12)
BOUNDS = st.integers(16, 60).flatmap(lambda most: st.tuples(st.just(most), st.integers(0, most // 2)))


def extract_of(blocks: list[tuple[BlockKind, str, int]]) -> Extract:
    """The extract of blocks given as kind, text and heading level."""
    writer = Writer()
    for kind, text, level in blocks:
        if kind is BlockKind.HEADING:
            writer.heading(level, text)
        else:
            writer.block(text, kind)
    return writer.extract("text/plain", "test 1")


def cut(extract: Extract, max_tokens: int = 16, overlap_tokens: int = 0) -> list[Chunk]:
    """The chunks of the extract."""
    parameters = RecursiveParameters(max_tokens=max_tokens, overlap_tokens=overlap_tokens)
    encoded = Encoded(token_ends(extract.text), np.empty((0, 0), np.float32))
    return RecursiveStrategy().cut(extract, encoded, parameters)


@given(BLOCKS, BOUNDS)
def test_chunks_are_slices_of_the_text_within_their_bound(
    blocks: list[tuple[BlockKind, str, int]], bounds: tuple[int, int]
) -> None:
    """Each chunk is the text at its bytes, with at most the maximum of tokens; every word is in a chunk."""
    extract = extract_of(blocks)
    text, ends = extract.text.encode(), token_ends(extract.text)
    chunks = cut(extract, *bounds)
    covered = bytearray(len(text))
    for ordinal, chunk in enumerate(chunks):
        assert chunk.ordinal == ordinal
        assert text[chunk.start : chunk.end].decode() == chunk.text
        assert chunk.text == chunk.text.strip() != ""
        assert chunk.token_count == sum(chunk.start < end <= chunk.end for end in ends) <= bounds[0]
        assert chunk.end - chunk.start <= bounds[0] * 33 + 33
        covered[chunk.start : chunk.end] = b"x" * (chunk.end - chunk.start)
    left = bytes(byte for byte, mark in zip(text, covered, strict=True) if not mark)
    assert left.decode().strip() == ""


@given(BLOCKS, BOUNDS)
def test_chunks_ascend_and_repeat_no_more_than_the_overlap(
    blocks: list[tuple[BlockKind, str, int]], bounds: tuple[int, int]
) -> None:
    """Each chunk ends after the one before, and shares at most the overlap with it."""
    extract = extract_of(blocks)
    ends = token_ends(extract.text)
    chunks = cut(extract, *bounds)
    for one, other in pairwise(chunks):
        assert one.start < other.start
        assert one.end < other.end
        assert sum(other.start < end <= one.end for end in ends) <= bounds[1]


def test_headings_part_the_text() -> None:
    """Text under two headings is never in one chunk, and each chunk has the headings above it."""
    extract = extract_of(
        [
            (BlockKind.HEADING, "Pods", 1),
            (BlockKind.HEADING, "Phase", 2),
            (BlockKind.PARAGRAPH, "A Pod has a phase.", 1),
            (BlockKind.HEADING, "Probes", 2),
            (BlockKind.PARAGRAPH, "A probe asks.", 1),
        ]
    )
    chunks = cut(extract)
    assert [chunk.text for chunk in chunks] == [
        "Pods\n\nPhase\n\nA Pod has a phase.",
        "Probes\n\nA probe asks.",
    ]
    assert [chunk.heading_path for chunk in chunks] == [("Pods", "Phase"), ("Pods", "Probes")]


def test_sentences_stay_whole_where_they_fit() -> None:
    """A paragraph that is too long is parted between sentences, Chinese ones too."""
    english = extract_of(
        [
            (
                BlockKind.PARAGRAPH,
                "One two three four five six seven. Eight nine ten eleven twelve thirteen. X.",
                1,
            )
        ]
    )
    chinese = extract_of([(BlockKind.PARAGRAPH, "今天天气很好我们去。明天下雨我们在家里看书。后天。", 1)])
    assert [chunk.text for chunk in cut(english)] == [
        "One two three four five six seven. Eight nine ten eleven twelve thirteen.",
        "X.",
    ]
    assert [chunk.text for chunk in cut(chinese)] == [
        "今天天气很好我们去。",
        "明天下雨我们在家里看书。后天。",
    ]


def test_overlap_begins_at_a_sentence() -> None:
    """What a chunk repeats of the one before begins at a sentence where one is near enough."""
    extract = extract_of([(BlockKind.PARAGRAPH, " ".join(f"Aa bb cc d{n}." for n in range(8)), 1)])
    chunks = cut(extract, 20, 10)
    assert [chunk.text for chunk in chunks][1] == "Aa bb cc d2. Aa bb cc d3. Aa bb cc d4. Aa bb cc d5."


def test_a_page_is_that_of_the_first_new_text() -> None:
    """A chunk's page is the one on which its own text begins."""
    writer = Writer()
    for page in (1, 2):
        writer.page = page
        writer.block(" ".join(f"w{page}x{n}" for n in range(16)) + ".")
    chunks = cut(writer.extract("application/pdf", "test 1", page_count=2), 20, 4)
    assert [chunk.page for chunk in chunks] == [1, 2]
