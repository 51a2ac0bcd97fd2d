"""The step that decides how an answer is come by."""

from gateway.course import Course, State
from gateway.plans import Plan


async def plan(course: Course) -> State:
    """Every question is searched for."""
    async with course.stage("plan") as detail:
        course.plan = Plan()
        detail["action"] = course.plan.action.value
    return State.RETRIEVE
