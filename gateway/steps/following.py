"""The step that tells what another caller's equal question is being told, so that it is answered once."""

from gateway.answers import Answer, Citation
from gateway.course import Course, State, Step
from gateway.events import Event, Heartbeat, Started, Token
from gateway.relaying import Relay, Underway


async def follow(leader: Underway, alone: Step, course: Course) -> State:
    """Tell what the leader tells, to its end; raises what it raises.

    Goes the way `alone` where the leader's last reader left before this one came.
    """
    if leader.stopping:
        return await alone(course)
    try:
        async with Relay(leader) as relay:
            async for numbered in relay:
                await _tell(course, numbered.event)
    finally:
        course.plan, course.prompt = leader.course.plan, leader.course.prompt
    return State.END


async def _tell(course: Course, event: Event) -> None:
    """Tell the event as this course's own; each answer has a beginning, an end and silences of its own."""
    match event:
        case Answer():
            _note_end(course, event)
        case Started():
            await course.announce(cached=event.cached)
        case Heartbeat():
            pass
        case Token():
            course.say(event.text)
            await course.emit(event)
        case Citation():
            course.note(citations=(*course.answer.citations, event))
            await course.emit(event)
        case _:
            await course.emit(event)


def _note_end(course: Course, answer: Answer) -> None:
    course.note(
        citations=answer.citations,
        usage=answer.usage,
        timings=answer.timings,
        degradations=answer.degradations,
        grounding=answer.grounding,
        cached=answer.cached,
        tool_calls=answer.tool_calls,
    )
    if answer.abstention.value:
        course.abstain(answer.abstention)
    else:
        course.end(answer.finish_reason)
