"""An engine that dies is replaced, and says so in between."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from itertools import islice

import pytest

from generator_svc.engine import Prompt, Request
from generator_svc.reviving import Restarts, RevivingEngine, open_reviving_engine
from meshkit.errors import Unavailable
from tests.generator_svc.doubles import PacedEngine
from tests.generator_svc.serving import called, read, request, text

SOON = Restarts(backoff_s=0.01, backoff_max_s=0.02, close_timeout_s=0.1, check_interval_s=0.01)
ONE = Request("one", Prompt("Go"), max_tokens=5)


class Opening:
    """Opens engines, each when `ready` is set; `failures` fail to open; those that `hang` close when `ended` is set."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.ready.set()
        self.attempts = 0
        self.engines: list[PacedEngine] = []
        self.open = 0
        self.cancelled = 0
        self.restarts = 0
        self.failures = 0
        self.hang = False
        self.ended = asyncio.Event()

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[PacedEngine]:
        self.attempts += 1
        try:
            await self.ready.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failures:
            self.failures -= 1
            raise RuntimeError("no memory is left")
        self.engines.append(PacedEngine(max_model_tokens=1000 + self.attempts))
        self.open += 1
        yield self.engines[-1]
        if self.hang:
            await self.ended.wait()
        self.open -= 1

    def count(self) -> None:
        self.restarts += 1


@asynccontextmanager
async def revived(opening: Opening) -> AsyncIterator[RevivingEngine]:
    """The engine, and at the end no task of it."""
    before = asyncio.all_tasks()
    async with open_reviving_engine(opening, SOON, opening.count) as engine:
        yield engine
    opening.ended.set()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before | {task for task in asyncio.all_tasks() if task.done()}


async def until(happened: Callable[[], bool]) -> None:
    """Return when it has."""
    async with asyncio.timeout(5):
        while not happened():
            await asyncio.sleep(0.001)


async def written(engine: RevivingEngine) -> str:
    """What it writes when asked for five words."""
    async with aclosing(engine.generate(await engine.prepare(ONE))) as deltas:
        return "".join([delta.text async for delta in deltas])


async def test_a_dead_engine_is_replaced() -> None:
    """In between work is refused with when to come back; then it goes on with the new engine, the old one closed."""
    opening = Opening()
    async with revived(opening) as engine:
        assert (await written(engine), engine.cache_use) == ("0 1 2 3 4 ", 0.25)
        opening.ready.clear()
        opening.engines[0].alive = False
        await until(lambda: opening.attempts == 2)

        for refused in (engine.check(), engine.prepare(ONE), engine.count_tokens(Prompt("Go"))):
            with pytest.raises(Unavailable) as caught:
                await refused
            assert (caught.value.reason, caught.value.retry_after_s) == ("ENGINE_UNAVAILABLE", 1.0)
        assert (engine.cache_use, engine.card.max_model_tokens) == (0.0, 1001)

        opening.ready.set()
        await until(lambda: opening.restarts == 1)
        assert await written(engine) == "0 1 2 3 4 "
        assert (engine.cache_use, engine.card.max_model_tokens) == (0.25, 1002)
        assert (opening.open, opening.restarts) == (1, 1)

    assert opening.open == 0


async def test_it_is_replaced_again_and_again() -> None:
    """Also where engines die as soon as they are open."""
    opening = Opening()
    async with revived(opening) as engine:
        for number in range(5):
            opening.engines[number].alive = False
            await until(lambda: opening.restarts > number)  # noqa: B023 - called within the round
            await engine.check()

        assert (opening.open, opening.restarts) == (1, 5)


async def test_a_stream_of_the_dead_engine_fails_and_its_work_is_not_for_another() -> None:
    """A stream under way ends with the reason; what was prepared before and not begun fails with the new engine."""
    opening = Opening()
    async with revived(opening) as engine, AsyncExitStack() as stack:
        early = await engine.prepare(ONE)
        running = await stack.enter_async_context(aclosing(engine.generate(await engine.prepare(ONE))))
        await anext(running)
        opening.engines[0].alive = False
        with pytest.raises(Unavailable, match="ENGINE_UNAVAILABLE"):
            await anext(running)
        await until(lambda: opening.restarts == 1)

        with pytest.raises(Unavailable, match="ENGINE_UNAVAILABLE"):
            await anext(engine.generate(early))
        assert not opening.engines[1].running


async def test_a_first_start_that_fails_is_raised() -> None:
    """Whoever opens the engine for the first time hears why there is none."""
    opening = Opening()
    opening.failures = 1
    with pytest.raises(RuntimeError, match="no memory"):
        async with open_reviving_engine(opening, SOON, opening.count):
            raise AssertionError

    assert opening.attempts == 1


async def test_later_starts_are_tried_for_ever() -> None:
    """Those that fail are not counted as restarts."""
    opening = Opening()
    async with revived(opening):
        opening.failures = 7
        opening.engines[0].alive = False
        await until(lambda: opening.restarts == 1)

    assert (opening.attempts, opening.restarts) == (9, 1)


async def test_an_engine_that_does_not_close_holds_nobody_up() -> None:
    """Its successor is opened all the same, and the whole ends all the same."""
    opening = Opening()
    opening.hang = True
    async with revived(opening) as engine:
        opening.engines[0].alive = False
        await until(lambda: opening.restarts == 1)

        assert (opening.open, await written(engine)) == (2, "0 1 2 3 4 ")


async def test_the_end_comes_in_the_midst_of_a_restart() -> None:
    """The opening under way is cancelled, and nothing is open."""
    opening = Opening()
    async with revived(opening):
        opening.ready.clear()
        opening.engines[0].alive = False
        await until(lambda: opening.attempts == 2)

    assert (opening.open, opening.cancelled) == (0, 1)


def test_waits_double_up_to_the_most() -> None:
    """Up to half of each is left to chance."""
    waits_s = list(islice(Restarts(1.0, 10.0, 1.0).waits_s(), 7))

    for wait_s, longest_s in zip(waits_s, [1, 2, 4, 8, 10, 10, 10], strict=True):
        assert longest_s / 2 <= wait_s <= longest_s


async def test_what_waits_for_a_slot_fails_with_the_engine() -> None:
    """Neither who runs nor who waits is left waiting for the new engine, which serves those who come later."""
    opening = Opening()
    async with revived(opening) as engine, called(engine, max_running=1) as stub:
        opening.ready.clear()
        calls = [stub.Generate(request(prompt="Go", max_tokens=1000))]
        await anext(aiter(calls[0]))
        calls += [stub.Generate(request(prompt="Go", max_tokens=1000)) for _ in range(3)]
        opening.engines[0].alive = False
        for call in calls:
            with pytest.raises(Unavailable, match="ENGINE_UNAVAILABLE"):
                await read(call)
        opening.ready.set()
        await until(lambda: opening.restarts == 1)

        assert text(await read(stub.Generate(request(prompt="Go", max_tokens=3)))) == "0 1 2 "
