"""One order from the finds of several searches."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.fusing import added, fuse
from gateway.retrieval import Degradation, Found
from tests.gateway.in_memory import hit

HITS = [hit(n, f"text {n}") for n in range(6)]
ORDERS = st.lists(st.sampled_from(HITS), unique_by=lambda each: each.chunk.name)
FOUNDS = st.lists(ORDERS.map(lambda hits: Found(tuple(hits))), min_size=1, max_size=4)


@given(FOUNDS, st.integers(1, 8))
def test_each_chunk_stands_once_and_its_order_is_stable(founds: list[Found], top_k: int) -> None:
    """Fusing again gives the same; no chunk is made up, and one that all have first is first."""
    fused = fuse(founds, top_k).hits
    assert fused == fuse(founds, top_k).hits
    names = [each.chunk.name for each in fused]
    assert len(names) == len(set(names))
    assert set(names) <= {each.chunk.name for found in founds for each in found.hits}
    if all(found.hits[:1] == founds[0].hits[:1] for found in founds):
        assert fused[:1] == founds[0].hits[:1]


def test_fusing_keeps_the_best_score_the_oldest_version_and_what_was_left_out() -> None:
    """A hit of two searches has its better score."""
    late, worse = Degradation("dense", "PEER_UNAVAILABLE"), hit(5, "text 0")
    twin = type(worse)(HITS[0].chunk, 0.1)
    fused = fuse([Found((twin,), (late,), version=7), Found((HITS[0], HITS[1]), (late,), version=6)], 8)
    assert [each.score for each in fused.hits] == [HITS[0].score, HITS[1].score]
    assert (fused.version, fused.degradations) == (6, (late,))


def test_hits_added_keep_the_numbers_that_were_told() -> None:
    """New ones stand behind those that are known."""
    both = added(Found((HITS[2], HITS[0])), Found((HITS[0], HITS[1])))
    assert both.hits == (HITS[2], HITS[0], HITS[1])
