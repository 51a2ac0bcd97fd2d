"""What holds of the chunks of every strategy, by property."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_svc.chunking import Strategy
from ingest_svc.extract import BlockKind
from ingest_svc.strategies.loading import BUILT_IN
from tests.ingest_svc.extracts import BLOCKS, cut, extract_of
from tests.ingest_svc.words import token_ends

BOUNDS = st.integers(16, 60).flatmap(lambda most: st.tuples(st.just(most), st.integers(0, most // 2)))
Blocks = list[tuple[BlockKind, str, int]]


def sizes(strategy: Strategy, bounds: tuple[int, int]) -> dict[str, int]:
    """The strategy's parameters for chunks of so many tokens at most that repeat at most so many."""
    if strategy.name == "character":
        return {"max_tokens": bounds[0], "max_characters": bounds[0] * 3, "overlap_characters": bounds[1]}
    return {"max_tokens": bounds[0], "overlap_tokens": bounds[1]}


@pytest.mark.parametrize("strategy", BUILT_IN, ids=lambda strategy: strategy.name)
@settings(max_examples=60, deadline=None)
@given(BLOCKS, BOUNDS, st.booleans())
def test_chunks_are_slices_of_the_text_within_their_bound(
    strategy: Strategy, blocks: Blocks, bounds: tuple[int, int], paged: bool
) -> None:
    """Each chunk is the text at its bytes, with at most the maximum of tokens; every word is in a chunk."""
    extract = extract_of(blocks, paged)
    text, ends = extract.text.encode(), token_ends(extract.text)
    covered = bytearray(len(text))
    for ordinal, chunk in enumerate(cut(strategy, extract, **sizes(strategy, bounds))):
        assert chunk.ordinal == ordinal
        assert text[chunk.start : chunk.end].decode() == chunk.text
        assert chunk.text == chunk.text.strip() != ""
        assert chunk.token_count == sum(chunk.start < end <= chunk.end for end in ends) <= bounds[0]
        assert chunk.end - chunk.start <= bounds[0] * 33 + 33
        covered[chunk.start : chunk.end] = b"x" * (chunk.end - chunk.start)
    left = bytes(byte for byte, mark in zip(text, covered, strict=True) if not mark)
    assert left.decode().strip() == ""


@pytest.mark.parametrize("strategy", BUILT_IN, ids=lambda strategy: strategy.name)
@settings(max_examples=60, deadline=None)
@given(BLOCKS, BOUNDS, st.booleans())
def test_chunks_ascend_and_repeat_no_more_than_the_overlap(
    strategy: Strategy, blocks: Blocks, bounds: tuple[int, int], paged: bool
) -> None:
    """Each chunk ends after the one before, and shares at most the overlap with it."""
    extract = extract_of(blocks, paged)
    ends = token_ends(extract.text)
    for one, other in pairwise(cut(strategy, extract, **sizes(strategy, bounds))):
        assert one.start < other.start
        assert one.end < other.end
        assert sum(other.start < end <= one.end for end in ends) <= bounds[1]


@pytest.mark.parametrize("strategy", BUILT_IN, ids=lambda strategy: strategy.name)
@settings(max_examples=60, deadline=None)
@given(BLOCKS, BOUNDS, st.booleans())
def test_chunks_stand_where_their_text_does(
    strategy: Strategy, blocks: Blocks, bounds: tuple[int, int], paged: bool
) -> None:
    """A chunk's page is that of a block in it, and its headings are above that block."""
    extract = extract_of(blocks, paged)
    for chunk in cut(strategy, extract, **sizes(strategy, bounds)):
        inside = [block for block in extract.blocks if block.start < chunk.end and chunk.start < block.end]
        assert chunk.page in {block.page for block in inside}
        known = chunk.heading_path[: max(len(block.heading_path) for block in inside)]
        assert any(block.heading_path[: len(known)] == known for block in inside)


@pytest.mark.parametrize("strategy", BUILT_IN, ids=lambda strategy: strategy.name)
@settings(deadline=None)
@given(st.lists(st.sampled_from(["pod", "node", "service.", "the", "Cluster", "42"]), min_size=1, max_size=120))
def test_no_word_is_parted_that_has_spaces_around_it(strategy: Strategy, words: list[str]) -> None:
    """Of spaced text each chunk begins and ends with a word."""
    extract = extract_of([(BlockKind.PARAGRAPH, " ".join(words), 1)])
    for chunk in cut(strategy, extract, **sizes(strategy, (16, 6))):
        assert set(chunk.text.split()) <= set(words)


@pytest.mark.parametrize("strategy", BUILT_IN, ids=lambda strategy: strategy.name)
def test_a_mark_stays_with_its_character(strategy: Strategy) -> None:
    """Thai vowels and tones that stand above or below a consonant are not parted from it."""
    extract = extract_of([(BlockKind.PARAGRAPH, "กินน้ำที่นี่ไม่มีปัญหาเลย" * 40, 1)])
    for chunk in cut(strategy, extract, **sizes(strategy, (16, 6))):
        assert chunk.text[0] not in "ิ้ี่ั"
