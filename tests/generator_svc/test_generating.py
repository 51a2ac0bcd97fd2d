"""Generations under way: admitted, found, aborted, freed."""

import asyncio
import time
from contextlib import aclosing

import pytest

from generator_svc.admission import Limits
from generator_svc.engine import Delta, Grounded, Passage, Prompt, Request, Work
from generator_svc.extractive_engine import ExtractiveEngine
from generator_svc.generating import Generator
from meshkit.errors import Aborted, AlreadyExists, InvalidArgument, ResourceExhausted, Unavailable
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


async def test_abort_reaches_what_waits() -> None:
    """A request in the queue leaves it with Aborted and never sees the engine; its id is taken until then."""
    engine = PacedEngine()
    running = _generator(engine, max_running=1)
    async with aclosing(running.generate(_request("runs", tokens=1000))) as deltas:
        await anext(deltas)
        waiting = asyncio.create_task(_read(running, _request("waits")))
        await until(lambda: running.load().waiting == 1)
        with pytest.raises(AlreadyExists, match="GENERATION_EXISTS"):
            await _read(running, _request("waits"))
        assert await running.abort("acme/waits")
        with pytest.raises(Aborted, match="GENERATION_ABORTED"):
            await waiting
        assert (running.load().waiting, running.load().outstanding_tokens) == (0, 999)

    assert [asked.id for asked in engine.asked] == ["runs"]
    assert not await running.abort("acme/waits")


async def test_abort_reaches_what_is_being_read() -> None:
    """A request whose prompt the engine has not yet read ends too."""

    class SlowReader(PacedEngine):
        async def prepare(self, request: Request) -> Work:
            await asyncio.sleep(30)
            raise AssertionError("it was read")

    running = _generator(SlowReader())
    reader = asyncio.create_task(_read(running, _request()))
    await asyncio.sleep(0)
    assert await running.abort("acme/one")
    with pytest.raises(Aborted, match="GENERATION_ABORTED"):
        await reader


async def test_abort_can_be_repeated_while_its_reader_has_not_noticed() -> None:
    """Both find the generation, and one Aborted comes of it."""
    running = _generator(PacedEngine(pause_s=30))
    reader = asyncio.create_task(_read(running, _request()))
    await until(lambda: running.load().running == 1)

    assert await running.abort("acme/one")
    assert await running.abort("acme/one")
    with pytest.raises(Aborted, match="GENERATION_ABORTED"):
        await reader


async def test_a_cancellation_beside_an_abort_is_no_abort() -> None:
    """A reader whose own task is cancelled in the same moment stays cancelled."""
    engine = PacedEngine(pause_s=30)
    running = _generator(engine)
    reader = asyncio.create_task(_read(running, _request()))
    await until(lambda: running.load().running == 1)
    await running.abort("acme/one")
    reader.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reader
    assert reader.cancelled()
    assert (engine.running, running.load().running) == (set(), 0)


async def test_leaving_the_queue_is_no_slot_freed() -> None:
    """A cancelled waiter is gone at once, and the metric of freed slots knows nothing of it."""
    freed: list[float] = []
    running = _generator(PacedEngine(), max_running=1, freed=freed)
    async with aclosing(running.generate(_request("runs", tokens=1000))) as deltas:
        await anext(deltas)
        waiting = asyncio.create_task(_read(running, _request("waits")))
        await until(lambda: running.load().waiting == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert running.load().waiting == 0
        assert freed == []


async def test_an_engine_that_fails_gives_its_places_back() -> None:
    """Who waited behind the failed stream gets its place, and fails or not by itself."""
    engine = PacedEngine()
    running = _generator(engine, max_running=1)
    async with aclosing(running.generate(_request("fails", tokens=1000))) as deltas:
        await anext(deltas)
        waiting = asyncio.create_task(_read(running, _request("waits")))
        await until(lambda: running.load().waiting == 1)
        engine.alive = False
        with pytest.raises(Unavailable):
            await anext(deltas)
        engine.alive = True

        assert await waiting == "0 1 2 3 4 "
    assert running.load().running == 0


async def test_load_and_totals_are_what_happened() -> None:
    """Sequences, the tokens that they may come to, those yet to be made, here and in the queue; then what was made."""
    running = _generator(PacedEngine(), max_running=1)
    async with aclosing(running.generate(_request("runs", tokens=10))) as deltas:
        for _ in range(4):
            await anext(deltas)
        waiting = asyncio.create_task(_read(running, _request("waits", tokens=7)))
        await until(lambda: running.load().waiting == 1)
        load = running.load()
    await waiting

    assert (load.running, load.waiting, load.limit, load.cache_use) == (1, 1, 1, 0.25)
    assert (load.running_tokens, load.token_limit, load.outstanding_tokens) == (11, 0, 6 + 7)
    assert (running.totals.completion_tokens, running.totals.prompt_tokens) == (4 + 7, 1)
    assert running.load().outstanding_tokens == running.load().running_tokens == 0


async def test_the_time_in_the_queue_is_told() -> None:
    """On the last delta `queue` is it and `first_token` holds it; the metric gets it, also where it is next to none."""
    waits: list[float] = []
    freed: list[float] = []
    running = Generator(ExtractiveEngine("extractive", 0.0), Limits(1, 1), freed.append, waits.append)
    grounded = Grounded("What is paid?", [Passage(1, "Leave is paid.")])
    async with aclosing(running.generate(Request("runs", grounded))) as deltas:
        await anext(deltas)
        waiting = asyncio.create_task(_last(running, Request("waits", grounded)))
        await until(lambda: running.load().waiting == 1)
        waits_from_s = time.monotonic()
        await asyncio.sleep(0.02)
        waited_s = time.monotonic() - waits_from_s
    stages = {stage.name: stage for stage in (await waiting).stages}

    assert waits[0] < waited_s <= waits[1]
    assert stages["queue"].duration_s >= waits[1]
    assert stages["prefill"].start_s == stages["queue"].duration_s
    assert stages["first_token"].duration_s > stages["queue"].duration_s


async def _last(running: Generator, asked: Request) -> Delta:
    return [delta async for delta in running.generate(asked)][-1]


async def test_the_rate_counts_the_tokens_of_the_last_seconds() -> None:
    """A generator that made tokens says so; a new one has none."""
    running = _generator(PacedEngine())
    assert running.load().tokens_per_second == 0

    await _read(running, _request(tokens=5))

    assert running.load().tokens_per_second > 0
