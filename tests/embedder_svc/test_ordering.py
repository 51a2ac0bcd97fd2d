"""Work on a stream, some at once, answered in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from embedder_svc.ordering import in_order


class Source:
    """Numbers without end; knows how many were read."""

    def __init__(self, end: int = 1000, *, failing: bool = False) -> None:
        self.read = 0
        self._end = end
        self._failing = failing

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in range(self._end):
            self.read += 1
            yield number
        if self._failing:
            raise ConnectionError("source")


async def later(number: int) -> int:
    """The number, sooner the larger it is within its pair."""
    await asyncio.sleep(0.01 if number % 2 == 0 else 0)
    return number


async def test_results_come_in_the_order_of_the_items() -> None:
    """Whichever work ends first."""
    async with aclosing(in_order(aiter(Source(9)), later, 4)) as results:
        assert [number async for number in results] == list(range(9))


async def test_no_more_is_read_than_the_depth_allows() -> None:
    """A consumer that takes nothing stops the source."""
    source = Source()
    async with aclosing(in_order(aiter(source), later, 3)) as results:
        assert await anext(results) == 0
        await asyncio.sleep(0.05)
        assert source.read == 3
        assert await anext(results) == 1
        await asyncio.sleep(0.05)
        assert source.read == 4


async def test_an_item_is_answered_before_the_next_one_comes() -> None:
    """A sender that waits for its answer gets it, whatever the depth."""
    items: asyncio.Queue[int] = asyncio.Queue()

    async def source() -> AsyncIterator[int]:
        while True:
            yield await items.get()

    async with aclosing(in_order(source(), later, 4)) as results, asyncio.timeout(5):
        for number in range(3):
            items.put_nowait(number)
            assert await anext(results) == number


async def test_a_failing_source_ends_the_stream_after_what_it_gave() -> None:
    """The results before the failure arrive."""
    async with aclosing(in_order(aiter(Source(3, failing=True)), later, 2)) as results:
        assert [await anext(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ConnectionError):
            await anext(results)


async def test_leaving_and_failing_cancel_what_runs() -> None:
    """Neither a consumer that leaves nor work that fails leaves work behind."""
    begun, ended = 0, 0

    async def work(number: int) -> int:
        nonlocal begun, ended
        begun += 1
        try:
            await asyncio.sleep(0 if number == 0 else 30)
            return number
        finally:
            ended += 1

    async with aclosing(in_order(aiter(Source()), work, 3)) as results:
        await anext(results)
        await asyncio.sleep(0.01)
    assert begun == ended == 3
