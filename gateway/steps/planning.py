"""The step that decides how an answer is come by: by rules where they suffice, else by the language model."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway import rules
from gateway.consulting import Form, consult, conversation, instructed
from gateway.course import Course, State
from gateway.events import Token
from gateway.plans import Action, Plan
from gateway.retrieval import Degradation
from gateway.toolbox.calculator import Calculator
from gateway.toolbox.offering import calls_left, misses_tools, own_tools, tools_on_offer
from gateway.tools import Tool, ToolCall

_INSTRUCTIONS = """\
You plan how a question is answered, as a JSON object. The asker's own documents can be searched, and there are tools.
- action: `retrieve` to search the documents; `tool` to call tools; `several` to call tools and to search; `direct` only
  where the conversation or the tools' results hold the answer already.
- queries: what to search for: the question so that it stands alone, then each part of it where it has several.
- calls: the tools to call now, with their arguments.
- more: whether further calls may be needed that depend on what these answer.

Tools:
{tools}"""

_MAX_QUERIES = 4


@dataclass(frozen=True, slots=True)
class _Called:
    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Planned:
    action: Action
    queries: tuple[str, ...] = ()
    calls: tuple[_Called, ...] = ()
    more: bool = False


_FORM = Form(_Planned, max_tokens=512)


async def plan(course: Course) -> State:
    """Plan, or plan again when tools have answered."""
    if misses_tools(course):
        course.degrade(Degradation("tool", "TOOL_NOT_FOUND"))
    async with course.stage("plan") as detail:
        plan = course.plan = _by_rules(course) or await _by_model(course) or _otherwise(course)
        detail["action"] = plan.action.value
        if plan.queries:
            detail["queries"] = list(plan.queries)
        if plan.calls:
            detail["tools"] = [call.tool for call in plan.calls]
    return await _next(course)


async def _next(course: Course) -> State:
    """Calls come first; a reply is said as it stands."""
    plan = course.plan
    if plan.calls:
        return State.CALL
    if plan.reply:
        course.say(plan.reply)
        await course.emit(Token(plan.reply))
        return State.END
    return State.RETRIEVE if plan.searches else State.WRITE


def _by_rules(course: Course) -> Plan | None:
    """What needs no model: greetings, arithmetic, and what comes of tools that need no further ones."""
    if _tool_rounds(course):
        return _answered(course)
    text, own = course.question.text, own_tools(course) if calls_left(course) > 0 else {}
    if course.question.planning.must_call or course.exchanges:
        return None
    if reply := rules.courtesy(text):
        return Plan(Action.DIRECT, reply=reply if _may_reply(course) else "")
    if Calculator.tool.name in own and (expression := rules.arithmetic(text)):
        return Plan(Action.TOOL, calls=(_call(Calculator.tool.name, {"expression": expression}),))
    return None


def _answered(course: Course) -> Plan | None:
    """The plan behind calls, or None where the model is to plan again: it wanted to, or a call has failed."""
    before, exchanges = course.plan, course.exchanges[-len(course.plan.calls) :]
    failed = any(each.result.failure for each in exchanges)
    computed = rules.arithmetic(course.question.text) and not failed
    if computed and _may_reply(course):
        return Plan(Action.DIRECT, reply="\n".join(each.result.content for each in exchanges))
    rounds_left = course.ports.limits.planning.max_tool_rounds - _tool_rounds(course)
    if (before.more or failed) and rounds_left > 0 and tools_on_offer(course):
        return None
    return Plan(Action.RETRIEVE if before.searches or failed else Action.DIRECT, before.queries)


async def _by_model(course: Course) -> Plan | None:
    """What the model plans where the question offers tools; without any it is always to search, and nobody is asked."""
    tools = tools_on_offer(course) if _offers(course) else ()
    if not tools:
        return None
    offered = "\n".join(f"- {tool.name}: {tool.description} {json.dumps(tool.parameters_schema)}" for tool in tools)
    chat = instructed(_INSTRUCTIONS.format(tools=offered), conversation(course))
    planned = await consult(course, "plan", _FORM, chat, _schema(course, tools))
    return _read(course, planned, tools) if planned else None


def _otherwise(course: Course) -> Plan:
    """Search; in the other collections and the web too, where the question names them and nobody can choose."""
    named = [name for name in ("search", "web_search") if name in own_tools(course)]
    if named and calls_left(course) > 0 and not course.exchanges:
        return Plan(Action.SEVERAL, calls=tuple(_call(name, {"query": course.question.text}) for name in named))
    return Plan()


def _offers(course: Course) -> bool:
    asked = course.question
    if course.model.extractive and not asked.tools:
        return False
    named = asked.planning.server_tools not in ((), ("none",))
    return bool(asked.tools or named or asked.planning.search_collections)


def _may_reply(course: Course) -> bool:
    """Whether a sentence of ours may stand for the model's: its caller has not said how to write."""
    writing = course.question.writing
    return course.model.extractive or not (writing.instructions or writing.structured_output)


def _read(course: Course, planned: _Planned, tools: Sequence[Tool]) -> Plan:
    """The model's plan as far as it can be followed; what rests on nothing is searched for."""
    names, theirs = {tool.name for tool in tools}, {tool.name for tool in course.question.tools}
    wants_tools = planned.action in {Action.TOOL, Action.SEVERAL}
    calls = tuple(
        _call(each.tool, each.arguments, caller_runs=each.tool in theirs)
        for each in (planned.calls if wants_tools else ())
        if each.tool in names
    )
    queries = tuple(dict.fromkeys(query.strip() for query in planned.queries if query.strip()))[:_MAX_QUERIES]
    rests = planned.action is Action.DIRECT and (course.exchanges or course.history)
    if not (calls or rests):
        return Plan(Action.RETRIEVE, queries)
    return Plan(planned.action, queries, calls, planned.more and bool(calls))


def _schema(course: Course, tools: Sequence[Tool]) -> dict[str, Any]:
    """The form of a plan: a call has the name of a tool and arguments as it takes them."""
    must_call = course.question.planning.must_call and not course.exchanges
    callable_tools = (must_call and course.question.tools) or tools
    calls = [
        {
            "type": "object",
            "properties": {"tool": {"const": tool.name}, "arguments": _arguments(tool)},
            "required": ["tool", "arguments"],
        }
        for tool in callable_tools
    ]
    actions = [Action.TOOL] if must_call else list(Action)
    return {
        "type": "object",
        "properties": {
            "action": {"enum": [action.value for action in actions]},
            "queries": {"type": "array", "items": {"type": "string"}, "maxItems": _MAX_QUERIES},
            "calls": {"type": "array", "items": {"anyOf": calls}, "minItems": int(must_call)},
            "more": {"type": "boolean"},
        },
        "required": ["action", "queries", "calls", "more"],
    }


def _arguments(tool: Tool) -> Mapping[str, Any]:
    """The tool's schema; any object where it refers to places that are elsewhere in ours. They are checked later."""
    schema = {"type": "object", **tool.parameters_schema}
    return {"type": "object"} if "$ref" in json.dumps(schema) else schema


def _call(tool: str, arguments: Mapping[str, Any], *, caller_runs: bool = False) -> ToolCall:
    return ToolCall(uuid.uuid4().hex, tool, arguments, caller_runs)


def _tool_rounds(course: Course) -> int:
    return sum(timing.stage == "tool" for timing in course.answer.timings)
