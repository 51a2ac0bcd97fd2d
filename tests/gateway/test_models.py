"""The generator's models are known before a question needs them."""

import asyncio
from collections.abc import Sequence

import pytest

from gateway.generation import Model
from gateway.models import Models
from meshkit.errors import Unavailable
from tests.gateway.in_memory import TINY, MemoryGenerator

TTL_S = 10.0


class Gated(MemoryGenerator):
    """Answers once `gate` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.away = False

    async def list_models(self) -> Sequence[Model]:
        models = await super().list_models()
        await self.gate.wait()
        if self.away:
            raise Unavailable("PEER_UNAVAILABLE", "away")
        return models


class Clock:
    """A time that the test sets."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Asked:
    """Models over a generator and a clock that the test drives."""

    def __init__(self) -> None:
        self.generator, self.clock = Gated(), Clock()
        self.models = Models(self.generator, TTL_S, self.clock)

    async def at(self, now_s: float) -> Model:
        """The default model, chosen at this time."""
        self.clock.now_s = now_s
        async with asyncio.timeout(5):
            return await self.models.choose("")


async def test_fresh_models_are_not_asked_for() -> None:
    """In the first half of their time the models are taken as they are known."""
    asked = Asked()
    await asked.at(100.0)
    await asked.at(104.0)
    assert asked.generator.asked_for_models == 1


async def test_question_does_not_wait_for_models_half_as_old() -> None:
    """They are asked for behind its back, once, and the next question has the new ones."""
    asked = Asked()
    await asked.at(100.0)
    asked.generator.gate.clear()
    asked.generator.models = [TINY]
    assert [(await asked.at(now_s)).name for now_s in (106.0, 107.0)] == ["extractive"] * 2
    await asyncio.sleep(0)
    assert asked.generator.asked_for_models == 2
    asked.generator.gate.set()
    async with asyncio.timeout(5):
        while (await asked.models.choose("")).name != TINY.name:
            await asyncio.sleep(0)
    assert asked.generator.asked_for_models == 2


async def test_models_too_old_are_waited_for() -> None:
    """After a silence the question asks itself, and hears that the generator is away."""
    asked = Asked()
    await asked.at(100.0)
    asked.generator.models = [TINY]
    assert (await asked.at(111.0)).name == TINY.name
    asked.generator.away = True
    with pytest.raises(Unavailable, match="PEER_UNAVAILABLE"):
        await asked.at(122.0)


async def test_failing_in_the_background_is_nobodys_failure() -> None:
    """What is known serves on, and is asked for again by the next question."""
    asked = Asked()
    await asked.at(100.0)
    asked.generator.away = True
    for now_s in (106.0, 107.0):
        assert (await asked.at(now_s)).name == "extractive"
        await asyncio.sleep(0)
    assert asked.generator.asked_for_models == 3


async def test_closing_ends_the_asking() -> None:
    """Models that are closed leave no task behind."""
    asked = Asked()
    await asked.at(100.0)
    asked.generator.gate.clear()
    await asked.at(106.0)
    async with asyncio.timeout(5):
        await asked.models.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
