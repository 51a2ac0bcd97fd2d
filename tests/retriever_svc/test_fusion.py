"""Fusion of two ranked lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever_svc.fusion import Fusion, ReciprocalRank, Weighted, alone, fuse, scaled
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


def test_weighted_scores_are_scaled_and_added() -> None:
    """Each half from 0 to 1 over its own finds, and 0 for what it did not find."""
    dense = [Scored(A, 0.9), Scored(B, 0.8), Scored(C, 0.5)]
    sparse = [Scored(B, 12.0), Scored(A, 4.0)]
    fused = {found.place: found.score for found in fuse(Weighted(0.6), dense, sparse)}
    assert fused == {A: pytest.approx(0.6), B: pytest.approx(0.6 * 0.75 + 0.4), C: pytest.approx(0.0)}


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


@given(methods, halves(), halves())
def test_fusion_knows_no_side_but_by_weight(method: Fusion, dense: list[Scored], sparse: list[Scored]) -> None:
    """The halves exchanged, with the weight turned round, give the same scores."""
    turned = Weighted(1 - method.dense) if isinstance(method, Weighted) else method
    scores = {found.place: found.score for found in fuse(method, dense, sparse)}
    exchanged = {found.place: found.score for found in fuse(turned, sparse, dense)}
    assert exchanged == pytest.approx(scores)


def test_equal_scores_scale_to_one() -> None:
    """They are as good as each other and better than nothing."""
    assert scaled([0.3, 0.3]) == [1.0, 1.0]
    assert scaled([]) == []
