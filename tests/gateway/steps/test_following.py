"""The step that tells what another course is being told."""

import asyncio

import pytest

from gateway.answers import Abstention, FinishReason
from gateway.course import Course, State
from gateway.events import Heartbeat, Started, Token
from gateway.generation import Delta, Ending
from gateway.relaying import Pace, Underway
from gateway.steps.following import follow
from meshkit.errors import MeshError, Unavailable
from tests.gateway.in_memory import Told, World

PACE = Pace(heartbeat_s=0.01, hold_s=1.0, buffer_events=64, leave_timeout_s=2.0)


async def _alone(_course: Course) -> State:
    return State.PLAN


async def _follow(world: World, told: Told) -> tuple[State, Course, Underway]:
    leader, course = Underway(world.begin(), PACE), World().under_way(told)
    async with asyncio.timeout(5):
        return await follow(leader, _alone, course), course, leader


async def test_follower_tells_what_the_leader_tells() -> None:
    """The same events but for the beginning, which is its own, and the end, which its course tells; no generation."""
    told = Told()
    state, course, leader = await _follow(World(), told)
    assert state is State.END
    events = [numbered.event for numbered in leader.events if not isinstance(numbered.event, Heartbeat)]
    assert told.events[1:] == events[1:-1]
    assert told.events[0] == Started(course.answer.id, course.answer.session, course.answer.collection, "")
    mine, theirs = course.so_far(), leader.course.so_far()
    assert (mine.text, mine.citations, mine.usage, mine.timings) == (
        theirs.text,
        theirs.citations,
        theirs.usage,
        theirs.timings,
    )
    assert mine.id != theirs.id
    assert (course.plan, course.prompt) == (leader.course.plan, leader.course.prompt)


async def test_abstention_is_shared() -> None:
    """Where the leader has no answer, its reason is the follower's, and no text stays."""
    world = World()
    world.generator.deltas = [Delta(ending=Ending.ABSTAINED)]
    _, course, _ = await _follow(world, Told())
    answer = course.so_far()
    assert (answer.finish_reason, answer.abstention) == (FinishReason.ABSTAINED, Abstention.INSUFFICIENT_SUPPORT)
    assert answer.text == ""


async def test_leader_that_fails_in_mid_answer_fails_both() -> None:
    """Its failure is the follower's, behind what was said."""
    world, told = World(), Told()
    world.generator.deltas = [Delta("25 days of leave. "), Delta("Or so"), Unavailable("ENGINE_UNAVAILABLE", "died")]
    with pytest.raises(MeshError, match="ENGINE_UNAVAILABLE"):
        await _follow(world, told)
    assert [event.text for event in told.events if isinstance(event, Token)] == ["25 days of leave. ", "Or so"]


async def test_leader_that_was_left_is_not_followed() -> None:
    """Whose last reader left a moment ago is being cut short: the follower goes the whole way itself."""
    told, leader = Told(), Underway(World().begin(), PACE)
    await leader.close()
    assert await follow(leader, _alone, World().under_way(told)) is State.PLAN
    assert told.events == []
