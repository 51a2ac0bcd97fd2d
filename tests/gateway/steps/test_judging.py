"""The step that asks whether what was found suffices."""

import asyncio
from typing import Any

import pytest

from gateway.answers import Abstention, Planning
from gateway.course import State
from gateway.events import Stage
from gateway.retrieval import Found
from gateway.steps.judging import judge, worth_judging
from tests.gateway.in_memory import EXTRACTIVE, HITS, TINY, Told, World, hit

JUDGES = "sufficient"
WEAK = Found((hit(0, "Cafeteria."), hit(1, "Parking.")))
UNFIT = '{"sufficient": false, "query": "annual vacation entitlement"}'


async def _judged(said: Any, found: Found = WEAK) -> tuple[State, Any, Told]:
    world, told = World(), Told()
    world.generator.advice = {JUDGES: said}
    course = world.under_way(told, TINY)
    course.found = found
    async with asyncio.timeout(5):
        return await judge(course), course, told


async def test_better_query_is_searched_for() -> None:
    """What does not suffice is searched for once more, in other words."""
    state, course, told = await _judged(UNFIT)
    assert state is State.RETRIEVE
    assert course.plan.queries == ("annual vacation entitlement",)
    assert told.details("judge") == [{"sufficient": False, "query": "annual vacation entitlement"}]


@pytest.mark.parametrize(
    "said",
    [
        '{"sufficient": true, "query": "ignored"}',
        '{"sufficient": false, "query": ""}',
        '{"sufficient": false, "query": "How long is leave?"}',
        "no form",
    ],
)
async def test_without_a_better_query_the_answer_is_written(said: str) -> None:
    """Passages that suffice, a verdict without a new query and a model that fails all go on with what there is."""
    state, course, _ = await _judged(said)
    assert state is State.WRITE
    assert course.found == WEAK


async def test_nothing_found_twice_abstains() -> None:
    """Without hits and without a better query there is nothing to write from."""
    state, course, told = await _judged('{"sufficient": false}', Found(()))
    assert state is State.END
    assert course.answer.abstention is Abstention.NO_RELEVANT_CHUNKS
    assert [event.stage for event in told.events if isinstance(event, Stage)][-2:] == ["prompt", "generate"]


def _worth(found: Found, model: Any = TINY, rounds: int | None = None) -> bool:
    course = World().under_way(Told(), model, planning=Planning(max_retrieval_rounds=rounds))
    course.found = found
    course.time("retrieve", 0.0)
    return worth_judging(course)


def test_only_weak_hits_are_judged() -> None:
    """A model is asked where hits are few, or hold hardly a word of the question, or the question asks for it."""
    assert not _worth(Found(HITS))
    assert _worth(Found(HITS[:1]))
    assert _worth(WEAK)
    assert _worth(Found(HITS), rounds=2)


def test_judging_needs_a_model_and_a_round() -> None:
    """Without a language model, and where no further search is allowed, nobody is asked."""
    assert not _worth(WEAK, EXTRACTIVE)
    assert not _worth(WEAK, rounds=0)


async def test_rounds_are_bounded() -> None:
    """A model that is never content is asked as often as the question allows."""
    world, told = World(), Told()
    world.generator.advice = {JUDGES: UNFIT}
    world.retriever.found = WEAK
    await world.begin(model="tiny", planning=Planning(max_retrieval_rounds=1)).run(told)
    assert len(world.retriever.searches) == 2
    assert len(world.generator.advised) == 1
