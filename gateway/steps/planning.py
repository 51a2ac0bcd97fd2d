"""The step that decides how an answer is come by."""

from gateway.course import Course, State
from gateway.events import Token
from gateway.plans import Action, Plan


async def plan(course: Course) -> State:
    """Every question is searched for."""
    async with course.stage("plan") as detail:
        course.plan = Plan()
        detail["action"] = course.plan.action.value
    return await _next(course)


async def _next(course: Course) -> State:
    """Calls come first; a reply is said as it stands."""
    if course.plan.calls:
        return State.CALL
    if course.plan.reply:
        course.say(course.plan.reply)
        await course.emit(Token(course.plan.reply))
        return State.END
    return State.WRITE if course.plan.action is Action.DIRECT else State.RETRIEVE
