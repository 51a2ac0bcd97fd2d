"""The queue before a model: what is batched with what, in which order, and who is refused or skipped."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from embedder_svc.batching import Batched, Batcher, BatchLimits, Entry, Priority, open_batcher, open_device
from meshkit.errors import ResourceExhausted, Unavailable

LIMITS = BatchLimits(
    max_batch_tokens=40,
    max_padding_tokens=20,
    max_batch_items=4,
    max_queue_tokens=200,
    window_batches=4,
    max_interactive_run=2,
    retry_after_s=0.25,
)


UNLUCKY = -1


class Model:
    """Doubles numbers while its gate is open, and remembers its batches."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.batches: list[list[int]] = []

    def run(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        assert self.gate.wait(30)
        if UNLUCKY in items:
            raise ValueError("unlucky")
        return [2 * item for item in items]


@asynccontextmanager
async def batching(model: Model) -> AsyncIterator[Batcher[int, int]]:
    """A batcher over the model, on a device of its own."""
    with open_device("test") as device:
        async with open_batcher(model.run, LIMITS, device) as batcher:
            yield batcher


def entries(*items: int, tokens: int = 10, group: str = "") -> list[Entry[int]]:
    """Items of one length and group."""
    return [Entry(item, tokens, group) for item in items]


async def submitted(
    batcher: Batcher[int, int], wanted: list[Entry[int]], priority: Priority = Priority.BULK
) -> "asyncio.Task[Batched[int]]":
    """The call as a task that has reached the queue."""
    task = asyncio.create_task(batcher.submit(wanted, priority))
    await asyncio.sleep(0)
    return task


async def busy(batcher: Batcher[int, int], model: Model) -> "asyncio.Task[Batched[int]]":
    """A call that the model has begun and cannot end."""
    task = await submitted(batcher, entries(0))
    while not model.batches:
        await asyncio.sleep(0.001)
    return task


async def test_a_call_gets_its_results_in_its_own_order() -> None:
    """Sorting by length inside does not show outside."""
    model = Model()
    model.gate.set()
    async with batching(model) as batcher:
        wanted = [Entry(item, tokens) for item, tokens in ((1, 30), (2, 5), (3, 20), (4, 10))]
        done = await batcher.submit(wanted, Priority.BULK)
    assert done.results == [2, 4, 6, 8]
    assert 0 < done.submitted_s <= done.started_s <= done.ended_s


async def test_callers_that_wait_share_a_batch() -> None:
    """What came while the model was busy is run at once, up to the most items of a batch."""
    model = Model()
    async with batching(model) as batcher:
        first = await busy(batcher, model)
        waiting = [await submitted(batcher, entries(item)) for item in (1, 2, 3, 4, 5)]
        model.gate.set()
        results = [(await task).results for task in (first, *waiting)]
    assert results == [[0], [2], [4], [6], [8], [10]]
    assert model.batches == [[0], [1, 2, 3, 4], [5]]


async def test_batches_are_cut_by_padded_tokens_shortest_first() -> None:
    """The longest item times the items stays within the budget; an item over the budget goes alone."""
    model = Model()
    async with batching(model) as batcher:
        first = await busy(batcher, model)
        lengths = {1: 20, 2: 2, 3: 90, 4: 20, 5: 3, 6: 12}
        call = await submitted(batcher, [Entry(item, tokens) for item, tokens in lengths.items()])
        model.gate.set()
        await asyncio.gather(first, call)
    assert model.batches[1:] == [[2, 5, 6], [1, 4], [3]]


async def test_a_batch_is_not_mostly_padding() -> None:
    """What is much longer than those before it begins a batch of its own, though there is room."""
    model = Model()
    async with batching(model) as batcher:
        first = await busy(batcher, model)
        lengths = {1: 2, 2: 3, 3: 13, 4: 1}
        call = await submitted(batcher, [Entry(item, tokens) for item, tokens in lengths.items()])
        model.gate.set()
        await asyncio.gather(first, call)
    assert model.batches[1:] == [[4, 1, 2], [3]]


async def test_a_batch_holds_one_group() -> None:
    """Items with different prompts are never encoded together."""
    model = Model()
    async with batching(model) as batcher:
        first = await busy(batcher, model)
        mixed = [*entries(1, 3, group="a"), *entries(2, 4, group="b")]
        call = await submitted(batcher, mixed)
        model.gate.set()
        await asyncio.gather(first, call)
    assert model.batches[1:] == [[1, 3], [2, 4]]


async def test_queries_go_before_bulk_but_not_for_ever() -> None:
    """After `max_interactive_run` batches of queries bulk work has its turn."""
    model = Model()
    async with batching(model) as batcher:
        first = await busy(batcher, model)
        calls = [await submitted(batcher, entries(100, tokens=40))]
        calls += [await submitted(batcher, entries(item, tokens=40), Priority.INTERACTIVE) for item in (1, 2, 3)]
        model.gate.set()
        await asyncio.gather(first, *calls)
    assert model.batches[1:] == [[1], [2], [100], [3]]


async def test_a_call_larger_than_a_batch_is_bulk() -> None:
    """A great many queries in one call do not go before another caller's one."""
    model = Model()
    async with batching(model) as batcher:
        first = await busy(batcher, model)
        many = await submitted(batcher, entries(1, 2, 3, 4, 5), Priority.INTERACTIVE)
        one = await submitted(batcher, entries(9), Priority.INTERACTIVE)
        model.gate.set()
        await asyncio.gather(first, many, one)
    assert model.batches[1] == [9]


async def test_what_a_caller_who_left_wanted_is_skipped() -> None:
    """Nothing is run for a caller who is gone, and his room in the queue is free at once."""
    model = Model()
    async with batching(model) as batcher:
        first = await busy(batcher, model)
        leaver = await submitted(batcher, entries(*range(1, 20)))
        stayer = await submitted(batcher, entries(50))
        assert batcher.load.waiting == 2
        leaver.cancel()
        await asyncio.wait([leaver], timeout=5)
        assert batcher.load.waiting == 1
        batcher.refuse_if_full(tokens=190)
        model.gate.set()
        await asyncio.gather(first, stayer)
    assert model.batches == [[0], [50]]


async def test_a_caller_who_leaves_in_the_middle_of_his_call_is_skipped_from_there() -> None:
    """Batches that were already cut lose the entries of a caller who left."""
    model = Model()
    async with batching(model) as batcher:
        leaver = await submitted(batcher, entries(*range(8)))
        while not model.batches:
            await asyncio.sleep(0.001)
        leaver.cancel()
        await asyncio.wait([leaver], timeout=5)
        stayer = await submitted(batcher, entries(50))
        model.gate.set()
        await stayer
    assert model.batches == [[0, 1, 2, 3], [50]]


async def test_a_full_queue_refuses_at_once() -> None:
    """The refusal has the queue's state and says when to come back; the calls before it are answered."""
    model = Model()
    async with batching(model) as batcher:
        first = await busy(batcher, model)
        waiting = await submitted(batcher, entries(*range(1, 20)))
        with pytest.raises(ResourceExhausted) as refusal:
            await batcher.submit(entries(1, 2), Priority.INTERACTIVE)
        model.gate.set()
        await asyncio.gather(first, waiting)
    assert refusal.value.reason == "OVERLOADED"
    assert refusal.value.retry_after_s == 0.25
    assert refusal.value.metadata == {"waiting_tokens": "190", "limit": "200"}


async def test_an_empty_queue_takes_a_call_of_any_size() -> None:
    """A call larger than the queue is not refused for ever."""
    model = Model()
    model.gate.set()
    async with batching(model) as batcher:
        done = await batcher.submit(entries(*range(100)), Priority.BULK)
    assert done.results == [2 * item for item in range(100)]


async def test_a_batch_that_fails_fails_its_callers_only() -> None:
    """The callers of the batch get the model's error; the next batch is run."""
    model = Model()
    model.gate.set()
    async with batching(model) as batcher:
        with pytest.raises(ValueError, match="unlucky"):
            await batcher.submit(entries(12, UNLUCKY), Priority.BULK)
        assert batcher.alive
        assert (await batcher.submit(entries(1), Priority.BULK)).results == [2]


async def test_closing_fails_what_waits() -> None:
    """A caller of a batcher that closes gets DRAINING, and so does one who comes later."""
    model = Model()
    async with batching(model) as batcher:
        first = await busy(batcher, model)
        waiting = await submitted(batcher, entries(1))
        threading.Timer(0.05, model.gate.set).start()
    for task in (first, waiting):
        with pytest.raises(Unavailable, match="DRAINING"):
            await task
    with pytest.raises(Unavailable, match="DRAINING"):
        await batcher.submit(entries(1), Priority.BULK)


async def test_what_several_want_is_run_once() -> None:
    """Equal items in a batch, of one caller or of two, are one for the model; each place gets its result."""
    model = Model()
    async with batching(model) as batcher:
        first = await busy(batcher, model)
        calls = [await submitted(batcher, entries(*items)) for items in ((1, 2), (2, 1))]
        model.gate.set()
        results = [(await task).results for task in (first, *calls)]
    assert results == [[0], [2, 4], [4, 2]]
    assert model.batches[1:] == [[1, 2]]


async def test_models_of_one_device_take_turns() -> None:
    """A model with much to do does not keep another waiting for more than a batch; no two run at once."""
    busier, other, running = Model(), Model(), threading.Lock()

    def alone(model: Model) -> Callable[[Sequence[int]], list[int]]:
        def run(items: Sequence[int]) -> list[int]:
            with running:
                order.append(model)
                return model.run(items)

        return run

    order: list[Model] = []
    with open_device("test") as device:
        async with (
            open_batcher(alone(busier), LIMITS, device) as bulk,
            open_batcher(alone(other), LIMITS, device) as single,
        ):
            first = await submitted(bulk, entries(*range(12)))
            while not busier.batches:
                await asyncio.sleep(0.001)
            second = await submitted(single, entries(1))
            busier.gate.set()
            other.gate.set()
            await asyncio.gather(first, second)
    assert order == [busier, other, busier, busier]
