"""The step that has the answer written, when the time is short."""

import asyncio
from dataclasses import replace
from typing import Any

from gateway.answers import Abstention, FinishReason
from gateway.budget import Budget
from gateway.course import Course, State
from gateway.generation import Chat, Delta
from gateway.plans import Action, Plan
from gateway.retrieval import Degradation, Found
from gateway.steps.writing import write
from meshkit import deadline
from meshkit.deadline import Deadline
from tests.gateway.in_memory import TINY, Told, World, hit

LATE = Degradation("generate", "DEADLINE_EXCEEDED")


def _course(within_s: float, *deltas: Delta | None, each_s: float = 0.0) -> tuple[World, Course]:
    """A course that has come to its writing; a passage has lately taken `each_s`."""
    world = World()
    world.generator.deltas = deltas
    course = world.under_way(Told(), TINY)
    course.found = Found(tuple(hit(n, f"Leave is {n} days.") for n in range(8)))
    with deadline.using(Deadline.after(within_s)):
        course.budget = Budget.current()
    if each_s:
        course.budget.experience.took("prose tiny", each_s)
    return world, course


async def _written(course: Course) -> Any:
    async with asyncio.timeout(5):
        assert await write(course) is State.END
    return course.so_far()


async def test_what_was_said_when_the_time_ends_is_the_answer() -> None:
    """It ends for its length, before the deadline, with its citations, and the engine is free."""
    world, course = _course(0.3, Delta("Leave is 1 days. [2]", 5), None)
    answer = await _written(course)
    assert (answer.text, answer.finish_reason) == ("Leave is 1 days. [2]", FinishReason.LENGTH)
    assert (answer.degradations, [cited.number for cited in answer.citations]) == ((LATE,), [2])
    assert len(answer.grounding) == 1
    assert world.generator.freed


async def test_nothing_said_when_the_time_ends_leaves_the_chunks() -> None:
    """An abstention for the time; what was found has been told."""
    _, course = _course(0.2, None)
    answer = await _written(course)
    assert (answer.text, answer.abstention) == ("", Abstention.OUT_OF_TIME)
    assert answer.degradations == (LATE,)
    assert course.budget.experience.expected_s("prose tiny") > 0


async def test_fewer_passages_are_read_where_all_would_take_too_long() -> None:
    """As many as fit in half of what is left, the best ones."""
    world, course = _course(10.0, Delta("Leave is 0 days. [1]", 5), each_s=1.0)
    answer = await _written(course)
    prompt = world.generator.generations[0].prompt
    assert isinstance(prompt, Chat)
    assert prompt.messages[-1].content.count("<passage") == 4
    assert answer.degradations == (Degradation("prompt", "DEADLINE_EXCEEDED"),)
    assert answer.finish_reason is FinishReason.STOP


async def test_no_time_for_prose_asks_no_engine() -> None:
    """Where reading one passage lately took longer than is left, the chunks have to do at once."""
    world, course = _course(1.0, None, each_s=2.0)
    answer = await _written(course)
    assert (answer.abstention, world.generator.generations) == (Abstention.OUT_OF_TIME, [])
    assert answer.degradations == (Degradation("prompt", "DEADLINE_EXCEEDED"),)


async def test_direct_answer_rests_on_no_passage() -> None:
    """It is written from the conversation alone, and is no invention for that."""
    world, course = _course(10.0, Delta("It was about leave.", 5))
    course.found, course.plan = Found(()), replace(Plan(), action=Action.DIRECT)
    answer = await _written(course)
    assert (answer.text, answer.abstention) == ("It was about leave.", Abstention.NONE)
    prompt = world.generator.generations[0].prompt
    assert isinstance(prompt, Chat)
    assert "<passage" not in prompt.messages[-1].content
