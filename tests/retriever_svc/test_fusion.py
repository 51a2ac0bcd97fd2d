"""Fusion of two ranked lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever_svc.diversifying import scaled
from retriever_svc.fusion import Fusion, Ranked, ReciprocalRank, Weighted, alone, fuse
from retriever_svc.index import Place, Scored

A, B, C = (Place(name, 0) for name in "abc")


@st.composite
def halves(draw: st.DrawFn) -> list[Scored]:
    """A half of a search: distinct places, best first."""
    ordinals = draw(st.lists(st.integers(0, 15), unique=True, max_size=12))
    scores = sorted((draw(st.floats(-1, 100, width=32)) for _ in ordinals), reverse=True)
    return [Scored(Place("d", ordinal), score) for ordinal, score in zip(ordinals, scores, strict=True)]


methods = st.one_of(st.builds(ReciprocalRank, st.integers(1, 1000)), st.builds(Weighted, st.floats(0, 1, width=32)))


def test_reciprocal_ranks_add_up() -> None:
    """A chunk of ranks 1 and 2 has 1/61 + 1/62; one of a single half has its share alone."""
    fused = fuse(ReciprocalRank(), [Scored(A, 0.9), Scored(B, 0.8)], [Scored(C, 7.0), Scored(A, 5.0)])
    assert [found.place for found in fused] == [A, C, B]
    assert [found.score for found in fused] == pytest.approx([1 / 61 + 1 / 62, 1 / 61, 1 / 62])


def test_weighted_scores_are_measured_and_added() -> None:
    """A cosine from the least, a BM25 score by the greatest, and 0 for what a half did not find."""
    dense = [Scored(A, 0.9), Scored(B, 0.8), Scored(C, 0.5)]
    sparse = [Scored(B, 12.0), Scored(A, 4.0)]
    fused = {found.place: found.score for found in fuse(Weighted(0.6), dense, sparse)}
    assert fused == {A: pytest.approx(0.6 * 0.4 + 0.4 / 3), B: pytest.approx(0.6 * 0.3 + 0.4), C: pytest.approx(0.0)}


def test_what_each_half_made_of_a_find_is_kept() -> None:
    """Ranks from 1, and the scores as they were."""
    (found,) = fuse(Weighted(), [], [Scored(A, 3.0)])
    assert found.dense is None
    assert found.sparse is not None
    assert (found.sparse.rank, found.sparse.score) == (1, 3.0)


@given(methods, halves(), halves())
def test_fusion_keeps_every_find_once_in_order(method: Fusion, dense: list[Scored], sparse: list[Scored]) -> None:
    """Nothing lost, nothing twice, scores descending."""
    fused = fuse(method, dense, sparse)
    assert sorted(found.place for found in fused) == sorted({found.place for found in dense + sparse})
    scores = [found.score for found in fused]
    assert scores == sorted(scores, reverse=True)


@given(methods, halves())
def test_a_half_alone_keeps_its_order(method: Fusion, half: list[Scored]) -> None:
    """Fused with nothing, a list stays as it is, whichever half it was."""
    places = [found.place for found in half]
    assert [found.place for found in fuse(method, half, [])] == places
    assert [found.place for found in fuse(method, [], half)] == places
    assert [(found.place, found.score) for found in alone(dense=half)] == [(f.place, f.score) for f in half]


@given(methods, halves())
def test_equal_halves_keep_their_order(method: Fusion, half: list[Scored]) -> None:
    """What both halves agree on stays so."""
    assert [found.place for found in fuse(method, half, half)] == [found.place for found in half]


@given(halves(), halves())
def test_a_half_of_no_weight_has_no_say(dense: list[Scored], sparse: list[Scored]) -> None:
    """With all the weight, a half's finds are in its own order; what it did not find comes with its last at best."""
    for method, half in ((Weighted(1.0), dense), (Weighted(0.0), sparse)):
        mine = {found.place for found in half}
        scores = {found.place: found.score for found in fuse(method, dense, sparse)}
        ordered = [scores[found.place] for found in half]
        assert ordered == sorted(ordered, reverse=True)
        assert all(score == 0.0 for place, score in scores.items() if place not in mine)


@given(methods, halves(), halves())
def test_the_better_in_both_halves_comes_first(method: Fusion, dense: list[Scored], sparse: list[Scored]) -> None:
    """A find that no half puts behind another is not behind it in the end."""
    fused = fuse(method, dense, sparse)
    for place, found in enumerate(fused):
        for later in fused[place + 1 :]:
            assert not (_ahead(later.dense, found.dense) and _ahead(later.sparse, found.sparse))


def _ahead(one: Ranked | None, other: Ranked | None) -> bool:
    """Whether a half put the one clearly before the other."""
    return one is not None and other is not None and one.rank < other.rank and one.score > other.score + 1e-3


def test_scores_that_hardly_differ_hardly_count() -> None:
    """An encoder that takes all texts for alike does not overrule the words."""
    unsure = [Scored(A, 0.803), Scored(B, 0.802), Scored(C, 0.801)]
    assert [found.place for found in fuse(Weighted(), unsure, [Scored(C, 9.0), Scored(B, 8.0)])] == [C, B, A]


def test_equal_scores_scale_to_one() -> None:
    """They are as good as each other and better than nothing."""
    assert scaled([0.3, 0.3]) == [1.0, 1.0]
    assert scaled([]) == []
