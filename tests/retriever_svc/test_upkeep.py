"""What keeps an index in order goes on whatever happens to it, and ends with the index."""

import asyncio

import pytest

from retriever_svc.upkeep import upkeep


async def test_a_failure_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """The third round is the first that succeeds."""
    rounds, done = list[int](), asyncio.Event()

    async def work() -> None:
        rounds.append(len(rounds))
        if len(rounds) < 3:
            raise TypeError("odd")
        done.set()

    async with upkeep(work, 0.001):
        await asyncio.wait_for(done.wait(), 5)
    assert [record.getMessage() for record in caplog.records].count(
        "the index is put in order later: TypeError: odd"
    ) == 2


async def test_a_round_under_way_ends_with_the_body() -> None:
    """Closing an index waits for no round."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with upkeep(work, 0.001):
        await asyncio.wait_for(begun.wait(), 5)
    assert ended.is_set()
