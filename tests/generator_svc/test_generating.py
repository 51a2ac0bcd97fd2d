"""Generations under way: admitted, found, aborted, freed."""

import asyncio
from contextlib import aclosing

import pytest

from generator_svc.admission import Limits
from generator_svc.engine import Prompt, Request
from generator_svc.generating import Generator
from meshkit.errors import Aborted, AlreadyExists, InvalidArgument, ResourceExhausted
from tests.generator_svc.doubles import PacedEngine, until


def _request(id: str = "one", owner: str = "acme", tokens: int = 5, n: int = 1) -> Request:
    return Request(id, Prompt("Go"), owner=owner, max_tokens=tokens, n=n)


def _generator(
    engine: PacedEngine, max_running: int = 2, max_waiting: int = 1, freed: list[float] | None = None
) -> Generator:
    waits: list[float] = []
    limits = Limits(max_running, max_waiting, retry_after_s=3.0)
    return Generator(engine, limits, (waits if freed is None else freed).append, waits.append)


async def _read(running: Generator, asked: Request) -> str:
    return "".join([delta.text async for delta in running.generate(asked)])


async def test_a_reader_that_leaves_frees_the_slot_and_is_timed() -> None:
    """Closing the stream closes the engine's, and the time that it took is told; a stream read to its end is not."""
    freed: list[float] = []
    engine = PacedEngine()
    running = _generator(engine, freed=freed)

    assert await _read(running, _request()) == "0 1 2 3 4 "
    assert freed == []
    async with aclosing(running.generate(_request())) as deltas:
        await anext(deltas)
        assert (running.load().running, running.load().outstanding_tokens) == (1, 4)

    assert not engine.running
    assert (running.load().running, running.load().outstanding_tokens) == (0, 0)
    assert len(freed) == 1


async def test_a_cancelled_reader_frees_the_slot() -> None:
    """Cancelling the task that waits for the engine closes the engine's stream before the task ends."""
    engine = PacedEngine(pause_s=30)
    running = _generator(engine)
    reader = asyncio.create_task(_read(running, _request()))
    await asyncio.sleep(0.01)
    assert engine.running

    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader

    assert not engine.running
    assert running.load().running == 0


async def test_more_than_the_limit_is_refused_at_once() -> None:
    """Sequences count: what does not fit gets OVERLOADED with the time to come back, what waits is told."""
    engine = PacedEngine()
    running = _generator(engine, max_running=2, max_waiting=1)
    async with aclosing(running.generate(_request("a", n=2))) as two:
        await anext(two)
        one = asyncio.create_task(_read(running, _request("b")))
        await until(lambda: running.load().waiting == 1)
        with pytest.raises(ResourceExhausted) as caught:
            await _read(running, _request("c"))
        load = running.load()

    assert (caught.value.reason, caught.value.retry_after_s) == ("OVERLOADED", 3.0)
    assert (load.running, load.waiting, load.limit) == (2, 1, 2)
    assert await one == "0 1 2 3 4 "
    assert await _read(running, _request("c"))


async def test_more_sequences_than_there_can_ever_be_is_a_bad_request() -> None:
    """Coming back later would not help, so the field is named."""
    with pytest.raises(InvalidArgument) as caught:
        await _read(_generator(PacedEngine()), _request(n=4))

    assert caught.value.violations[0].field == "n"


async def test_an_id_is_one_owners_and_one_at_a_time() -> None:
    """A running id cannot be taken again by its owner, but by another; when it has ended it can."""
    running = _generator(PacedEngine(), max_running=3)
    async with aclosing(running.generate(_request())) as deltas:
        await anext(deltas)
        with pytest.raises(AlreadyExists) as caught:
            await _read(running, _request())
        assert await _read(running, _request(owner="rivals"))

    assert (caught.value.reason, caught.value.metadata) == ("GENERATION_EXISTS", {"generation": "one"})
    assert await _read(running, _request())


@pytest.mark.parametrize("busy", [False, True], ids=["waiting", "busy"])
async def test_abort_ends_the_stream_wherever_its_reader_is(busy: bool) -> None:
    """A reader that waits for the engine, and one that is busy with a delta, both get Aborted; the slot is free."""
    engine = PacedEngine(pause_s=0.01)
    running = _generator(engine)
    async with aclosing(running.generate(_request(tokens=1000))) as deltas:
        await anext(deltas)
        if busy:
            assert await running.abort("acme/one")
            assert not engine.running
            with pytest.raises(Aborted, match="GENERATION_ABORTED"):
                await anext(deltas)
        else:
            engine.pause_s = 30
            reader = asyncio.ensure_future(anext(deltas))
            await asyncio.sleep(0.01)
            assert await running.abort("acme/one")
            with pytest.raises(Aborted, match="GENERATION_ABORTED"):
                await reader
            assert not engine.running

    assert not await running.abort("acme/one")


async def test_the_rate_counts_the_tokens_of_the_last_seconds() -> None:
    """A generator that made tokens says so; a new one has none."""
    running = _generator(PacedEngine())
    assert running.load().tokens_per_second == 0

    await _read(running, _request(tokens=5))

    assert running.load().tokens_per_second > 0
