"""What a search's options may do to its hits, whatever the chunks and the query."""

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retriever_svc.fusion import ReciprocalRank, Weighted, fuse
from retriever_svc.index import Index, Place, Scope, Scored
from retriever_svc.reading import Readers
from retriever_svc.search import Hit, Mode, Search
from retriever_svc.searching import Limits, Searching
from tests.retriever_svc.small_index import SmallIndex, WordsEmbedder

ALL = 1000
WORDS = st.sampled_from(["cat", "dog", "bird", "fish", "sleeps", "barks", "sings", "swims"])
TEXTS = st.lists(WORDS, min_size=1, max_size=5).map(" ".join)
DOCUMENTS = st.lists(st.lists(TEXTS, min_size=1, max_size=6), min_size=1, max_size=6)
SEARCHES = st.builds(
    Search,
    query=TEXTS,
    mode=st.sampled_from(Mode),
    top_k=st.integers(1, 12),
    fusion=st.sampled_from([None, ReciprocalRank(), Weighted(0.3)]),
    rerank=st.booleans(),
    candidates=st.integers(0, 12),
    diversity=st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    window=st.integers(0, 3),
    min_score=st.sampled_from([0.0, 0.01, 0.5, -8.0]),
)
some = settings(max_examples=60, deadline=None)


def found(index: SmallIndex, search: Search) -> tuple[Hit, ...]:
    """The hits, of a search that left nothing out."""
    searching = Searching(cast("Index", index), WordsEmbedder(), Limits(candidates=20, rerank_candidates=5), Readers())
    result = asyncio.run(searching.search(Scope("acme", "kb"), search))
    assert not result.degradations
    return result.hits


def places(hits: tuple[Hit, ...]) -> list[Place]:
    """Where the hits are."""
    return [hit.chunk.place for hit in hits]


@some
@given(DOCUMENTS, SEARCHES)
def test_hits_are_bounded_distinct_and_real(documents: list[list[str]], search: Search) -> None:
    """At most `top_k`, each chunk once and as it is stored, none under `min_score`; in order unless made diverse."""
    index = SmallIndex(documents)
    hits = found(index, search)
    assert len(hits) <= search.top_k
    assert len(set(places(hits))) == len(hits)
    assert all(hit.chunk == index.chunks[hit.chunk.place] for hit in hits)
    if search.min_score:
        assert all(hit.find.score >= search.min_score for hit in hits)
    if not search.diversity:
        assert all(better.find.score >= worse.find.score for better, worse in pairwise(hits))


@some
@given(DOCUMENTS, SEARCHES)
def test_a_window_changes_no_hit(documents: list[list[str]], search: Search) -> None:
    """It brings all there is so near in the same document, in order, without the hit."""
    index = SmallIndex(documents)
    hits = found(index, search)
    assert places(hits) == places(found(index, replace(search, window=0)))
    for hit in hits:
        document, ordinal = hit.chunk.place
        near = range(ordinal - search.window, ordinal + search.window + 1)
        there = [
            Place(document, other) for other in near if other != ordinal and Place(document, other) in index.chunks
        ]
        assert [chunk.place for chunk in hit.window] == there


@some
@given(DOCUMENTS, SEARCHES, st.sampled_from([-4.0, 0.2, 0.7]))
def test_min_score_only_leaves_out(documents: list[list[str]], search: Search, min_score: float) -> None:
    """What stays is what was there with at least the score, in its order."""
    index = SmallIndex(documents)
    plain = replace(search, diversity=0.0, min_score=0.0)
    kept = tuple(hit for hit in found(index, plain) if hit.find.score >= min_score)
    assert places(found(index, replace(plain, min_score=min_score))) == places(kept)


@some
@given(DOCUMENTS, SEARCHES)
def test_fewer_hits_are_the_first_of_more(documents: list[list[str]], search: Search) -> None:
    """Where the candidates are the same, with every option but reranking, whose candidates follow `top_k`."""
    index = SmallIndex(documents)
    fixed = replace(search, candidates=20, top_k=12, rerank=False)
    more = places(found(index, fixed))
    assert places(found(index, replace(fixed, top_k=3))) == more[:3]


@some
@given(DOCUMENTS, SEARCHES)
def test_diversity_chooses_among_the_candidates(documents: list[list[str]], search: Search) -> None:
    """Beginning with the best, unless likeness is all that counts."""
    index = SmallIndex(documents)
    fixed = replace(search, candidates=12, diversity=search.diversity or 0.5, rerank=False)
    plain = places(found(index, replace(fixed, diversity=0.0, top_k=12)))
    diverse = places(found(index, fixed))
    assert set(diverse) <= set(plain)
    assert len(diverse) == min(search.top_k, len(plain))
    if fixed.diversity < 1 and diverse:
        best = found(index, replace(fixed, diversity=0.0))[0].find.score
        assert found(index, fixed)[0].find.score == pytest.approx(best)


@some
@given(DOCUMENTS, SEARCHES)
def test_reranking_orders_the_best_by_the_cross_encoder(documents: list[list[str]], search: Search) -> None:
    """As many as are considered, and each chunk is read once."""
    index = SmallIndex(documents)
    plain = replace(search, rerank=False, diversity=0.0, min_score=0.0, window=0)
    considered = found(index, replace(plain, top_k=max(5, plain.top_k), candidates=plain.candidates or 20))
    expected = sorted((-float(len(hit.chunk.text)) for hit in considered), reverse=True)[: plain.top_k]
    index.reads = 0
    hits = found(index, replace(plain, rerank=True, candidates=max(plain.candidates or 20, plain.top_k)))
    assert index.reads <= 1
    if (plain.candidates or 20) >= max(5, plain.top_k):
        assert [hit.find.score for hit in hits] == expected
    assert all(hit.find.rerank_score == hit.find.score for hit in hits)


@some
@given(DOCUMENTS, SEARCHES)
def test_explanations_are_the_halves_own_order(documents: list[list[str]], search: Search) -> None:
    """Each rank and score is that of a search by that half alone, and the fused score is theirs, fused."""
    index = SmallIndex(documents)
    search = replace(search, min_score=0.0)
    alone = replace(search, rerank=False, diversity=0.0, top_k=ALL, candidates=ALL, window=0)
    limit = max(search.candidates or 20, search.top_k)
    dense = found(index, replace(alone, mode=Mode.DENSE))[:limit]
    sparse = found(index, replace(alone, mode=Mode.SPARSE))[:limit]
    halves = [[Scored(hit.chunk.place, hit.find.score) for hit in half] for half in (dense, sparse)]
    fused = {find.place: find.score for find in fuse(search.fusion or Weighted(), *halves)}
    for hit in found(index, search):
        told, place = hit.find.fused, hit.chunk.place
        for ranked, half, mode in ((told.dense, dense, Mode.DENSE), (told.sparse, sparse, Mode.SPARSE)):
            if search.mode not in (mode, Mode.HYBRID) or place not in places(half):
                assert ranked is None
            else:
                assert ranked is not None
                assert ranked.rank == places(half).index(place) + 1
                assert ranked.score == half[ranked.rank - 1].find.score
        if search.mode is Mode.HYBRID:
            assert told.score == pytest.approx(fused[place])
