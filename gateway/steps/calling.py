"""The step that calls the tools of the plan."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from gateway.answers import FinishReason
from gateway.course import Course, State
from gateway.events import Retrieved
from gateway.failures import Failure
from gateway.retrieval import Degradation
from gateway.toolbox.arguments import check_arguments
from gateway.toolbox.offering import calls_left, own_tools
from gateway.tools import ServerTool, Tool, ToolCall, ToolExchange, ToolResult
from meshkit.errors import DeadlineExceeded, MeshError, not_found

logger = logging.getLogger(__name__)

_REASONS = {"DEADLINE_EXCEEDED", "TOOL_NOT_FOUND"}


async def call(course: Course) -> State:
    """Call the tools at once; what they answered, or why they failed, stands in the course's `exchanges`.

    It is planned anew with that. Calls that the caller is to run, and cannot answer before this answer ends, end it
    instead. Those beyond what an answer may call are left out.
    """
    calls = course.plan.calls[: max(calls_left(course), 0)]
    if len(calls) < len(course.plan.calls):
        course.degrade(Degradation("tool", "TOOL_FAILED"))
    theirs = tuple(each for each in calls if each.caller_runs)
    async with course.stage("tool") as detail:
        detail["tools"] = [each.tool for each in calls]
        if theirs and course.awaiting is None:
            return await _hand_over(course, theirs)
        before = course.found
        new = await _exchange(course, calls)
        course.exchanges = (*course.exchanges, *new)
    if course.found is not before:
        await course.emit(Retrieved(course.question.text, course.found.hits, course.found.degradations))
    return State.PLAN


async def _hand_over(course: Course, calls: tuple[ToolCall, ...]) -> State:
    if not course.question.planning.parallel_calls:
        calls = calls[:1]
    for each in calls:
        await course.emit(each)
    course.note(tool_calls=calls)
    return course.end(FinishReason.TOOL_CALL)


async def _exchange(course: Course, calls: Sequence[ToolCall]) -> list[ToolExchange]:
    own = own_tools(course)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_answered(course, each, own)) for each in calls]
    return [task.result() for task in tasks]


async def _answered(course: Course, call: ToolCall, own: Mapping[str, ServerTool]) -> ToolExchange:
    """The call and its result, both told to the caller."""
    begin_s = course.elapsed_s()
    try:
        result = await _result(course, call, own)
    except MeshError as error:
        reason = error.reason if error.reason in _REASONS else "TOOL_FAILED"
        result = ToolResult(call.id, failure=Failure(error.code, reason, error.message))
    except Exception:
        logger.exception("unexpected error of the tool %s", call.tool)
        result = ToolResult(call.id, failure=Failure("INTERNAL", "TOOL_FAILED", "internal error"))
    if result.failure:
        course.degrade(Degradation("tool", result.failure.reason))
    cut = result.cut(course.ports.limits.tools.max_result_bytes)
    told = replace(cut, duration_s=course.elapsed_s() - begin_s)
    await course.emit(told)
    return ToolExchange(call, told)


async def _result(course: Course, call: ToolCall, own: Mapping[str, ServerTool]) -> ToolResult:
    try:
        check_arguments(_described(course, call, own), call.arguments)
    except MeshError:
        # Nobody is to run it.
        await course.emit(replace(call, caller_runs=False))
        raise
    limits = course.ports.limits.tools
    if call.caller_runs and course.awaiting:
        with course.awaiting.expecting(call.id) as coming:
            await course.emit(call)
            async with _within(course, limits.caller_timeout_s):
                return await coming
    await course.emit(call)
    async with _within(course, limits.timeout_s):
        return ToolResult(call.id, await own[call.tool].call(call.arguments))


def _described(course: Course, call: ToolCall, own: Mapping[str, ServerTool]) -> Tool:
    offered = course.question.tools if call.caller_runs else [each.tool for each in own.values()]
    found = next((tool for tool in offered if tool.name == call.tool), None)
    if found is None:
        raise not_found("tool", call.tool, "TOOL_NOT_FOUND")
    return found


@asynccontextmanager
async def _within(course: Course, limit_s: float) -> AsyncIterator[None]:
    """Raise DeadlineExceeded where the body takes longer, or longer than the answer has for it."""
    try:
        async with asyncio.timeout(limit_s), course.budget.within("tool"):
            yield
    except TimeoutError:
        raise DeadlineExceeded("DEADLINE_EXCEEDED", "the tool took longer than it may") from None
