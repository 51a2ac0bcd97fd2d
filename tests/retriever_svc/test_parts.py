"""The small pure parts: diversity, packing, cutting, timing, working together."""

import asyncio
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshkit.timing import Stage, Stopwatch, spans
from retriever_svc.cutting import cut
from retriever_svc.diversifying import diversify
from retriever_svc.packing import Width, unpack
from retriever_svc.together import together

X, Y, XY = (np.array(vector, dtype=np.float32) for vector in ([1, 0], [0, 1], [1, 0.01]))


def test_diversity_weighs_likeness_against_the_score() -> None:
    """With none the scores' order stays; with much, what is like the first goes last."""
    vectors = np.stack([X, XY, Y])
    assert diversify([0.9, 0.8, 0.1], vectors, 0.0, 3) == [0, 1, 2]
    assert diversify([0.9, 0.8, 0.1], vectors, 0.9, 3) == [0, 2, 1]


@given(st.lists(st.floats(-10, 10), max_size=8), st.floats(0, 1), st.integers(1, 10))
def test_diversity_chooses_each_once(scores: list[float], diversity: float, limit: int) -> None:
    """As many as asked for, or all there are; the best comes first."""
    vectors = np.random.default_rng(1).standard_normal((len(scores), 3)).astype(np.float32)
    chosen = diversify(scores, vectors, diversity, limit)
    assert len(chosen) == len(set(chosen)) == min(limit, len(scores))
    if scores and diversity < 1:
        assert scores[chosen[0]] == pytest.approx(max(scores))


@pytest.mark.parametrize(
    ("width", "data"),
    [
        (Width.FLOAT32, np.array([1.5, -2, 0, 0.25], dtype="<f4").tobytes()),
        (Width.FLOAT16, np.array([1.5, -2, 0, 0.25], dtype="<f2").tobytes()),
        (Width.BFLOAT16, (np.array([1.5, -2, 0, 0.25], dtype="<f4").view("<u4") >> 16).astype("<u2").tobytes()),
    ],
)
def test_vectors_are_read_in_every_width(width: Width, data: bytes) -> None:
    """Row after row, as float32."""
    vectors = unpack(data, width, 2, 2)
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[1.5, -2], [0, 0.25]]


@pytest.mark.parametrize("data", [b"", b"123", np.array([1, np.nan], dtype="<f4").tobytes()])
def test_bytes_that_are_no_vectors_are_refused(data: bytes) -> None:
    """Too few, or not finite."""
    with pytest.raises(ValueError, match=r"bytes|finite"):
        unpack(data, Width.FLOAT32, 2, 1)


def test_unspaced_text_is_cut_in_pairs_and_characters() -> None:
    """Other words stay as they are."""
    assert cut("Kubernetes调度器 v1 北 京都タワー").split() == [
        "Kubernetes",
        "调度",
        "度器",
        "调",
        "度",
        "器",
        "v1",
        "北",
        "京都",
        "都タ",
        "タワ",
        "ワー",
        *"京都タワー",
    ]
    assert cut("plain words") == "plain words"


def test_stages_are_told_in_the_order_of_their_beginning() -> None:
    """Also one that failed, and one that began before another and ended after it."""
    watch = Stopwatch()
    with watch.stage("outer"), pytest.raises(ZeroDivisionError), watch.stage("inner"):
        raise ZeroDivisionError
    assert [stage.name for stage in watch.stages] == ["outer", "inner"]
    outer, inner = watch.stages
    assert 0 <= outer.start_s <= inner.start_s
    assert inner.duration_s <= outer.duration_s


def test_stages_of_calls_side_by_side_are_spanned() -> None:
    """From the first beginning to the last end, in the order of the beginnings."""
    one = [Stage("embed", 0.0, 0.25), Stage("dense", 0.25, 0.25)]
    other = [Stage("embed", 0.125, 0.25), Stage("dense", 0.5, 0.5)]
    assert spans([one, other]) == (Stage("embed", 0.0, 0.375), Stage("dense", 0.25, 0.75))
    assert spans([]) == ()


async def test_work_together_is_bounded_and_in_order() -> None:
    """Never more than the limit at once."""
    running, most = 0, 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (5 - number))
        running -= 1
        return number

    assert await together([partial(work, number) for number in range(5)], limit=2) == [0, 1, 2, 3, 4]
    assert most == 2


async def test_the_first_failure_ends_the_others() -> None:
    """And is raised as itself."""
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        await together([wait, fail, wait], limit=2)
    assert ended.is_set()
