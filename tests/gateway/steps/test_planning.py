"""The step that plans: by rules where they suffice, else by the model, and again when tools have answered."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from gateway.answers import Exchange, FinishReason, Planning
from gateway.course import Course, State
from gateway.events import Token
from gateway.failures import Failure
from gateway.generation import Chat, Model, Writing
from gateway.plans import Action, Plan
from gateway.retrieval import Degradation
from gateway.steps.planning import plan
from gateway.tools import Tool, ToolCall, ToolExchange, ToolResult
from meshkit.errors import Unavailable
from tests.gateway.in_memory import EXTRACTIVE, TINY, Told, World

PLANS = "You plan how"
WEATHER = Tool("weather", "The weather.", {"properties": {"city": {"type": "string"}}, "required": ["city"]})
BONN = {"tool": "weather", "arguments": {"city": "Bonn"}}
HR = Planning(search_collections=("collections/hr",))


class Step:
    """A course that has come to its plan."""

    def __init__(self, model: Model = TINY, **changes: Any) -> None:
        self.world, self.told = World(), Told()
        self.course: Course = self.world.under_way(self.told, model, **changes)

    def advise(self, **planned: Any) -> None:
        advice = {"action": "retrieve", "queries": [], "calls": [], "more": False, **planned}
        self.world.generator.advice = {PLANS: json.dumps(advice)}

    async def take(self) -> State:
        async with asyncio.timeout(5):
            return await plan(self.course)

    def answered(self, *results: str | None) -> None:
        """The tools of the plan have answered, or failed where None."""
        failure = Failure("ABORTED", "TOOL_FAILED", "no")
        for call, text in zip(self.course.plan.calls, results, strict=True):
            result = ToolResult(call.id, text or "", None if text else failure)
            self.course.exchanges = (*self.course.exchanges, ToolExchange(call, result))
        self.course.time("tool", 0.0)

    @property
    def asked(self) -> int:
        """How often the model was asked."""
        return len(self.world.generator.advised)


@pytest.mark.parametrize("model", [EXTRACTIVE, TINY])
async def test_question_is_searched_for_without_asking_a_model(model: Model) -> None:
    """Where no tool is offered there is nothing to choose from."""
    step = Step(model)
    assert await step.take() is State.RETRIEVE
    assert (step.course.plan, step.asked) == (Plan(), 0)
    assert step.told.details("plan") == [{"action": "retrieve"}]


@pytest.mark.parametrize("model", [EXTRACTIVE, TINY])
async def test_greeting_is_answered_at_once(model: Model) -> None:
    """A fixed sentence in the caller's language, with neither search nor generation."""
    step = Step(model, text="你好")
    assert await step.take() is State.END
    assert step.course.text.startswith("你好")
    assert [type(event) for event in step.told.events][-1] is Token


@pytest.mark.parametrize(
    ("planning", "left_out"),
    [
        (Planning(server_tools=("web_search",)), True),
        (Planning(server_tools=("search",)), True),
        (Planning(server_tools=("none",)), False),
        (replace(HR, server_tools=("calculator", "search")), False),
    ],
)
async def test_tool_that_is_named_and_not_there_is_told(planning: Planning, *, left_out: bool) -> None:
    """No key for the web, or nothing to search in: the answer goes on without the tool, and says so."""
    step = Step(EXTRACTIVE, planning=planning)
    await step.take()
    told = (Degradation("tool", "TOOL_NOT_FOUND"),) if left_out else ()
    assert step.course.answer.degradations == told


async def test_greeting_with_instructions_is_the_models_to_answer() -> None:
    """A caller who says how to write gets no sentence of ours."""
    step = Step(text="Hello!", writing=Writing(instructions="You are a pirate."))
    assert await step.take() is State.WRITE
    assert step.course.plan.action is Action.DIRECT


@pytest.mark.parametrize("model", [EXTRACTIVE, TINY])
async def test_arithmetic_goes_to_the_calculator(model: Model) -> None:
    """What it computes is the answer, as it stands."""
    step = Step(model, text="What is 6 * 7?")
    assert await step.take() is State.CALL
    assert [(call.tool, call.arguments) for call in step.course.plan.calls] == [("calculator", {"expression": "6 * 7"})]
    step.answered("6 * 7 = 42")
    assert await step.take() is State.END
    assert (step.course.text, step.asked) == ("6 * 7 = 42", 0)


async def test_arithmetic_that_fails_is_searched_for() -> None:
    """A calculator that cannot, or may not be called, leaves the question to the documents."""
    step = Step(EXTRACTIVE, text="1 / 0 + 1")
    await step.take()
    step.answered(None)
    assert await step.take() is State.RETRIEVE
    step = Step(EXTRACTIVE, text="6 * 7", planning=Planning(server_tools=("none",)))
    assert await step.take() is State.RETRIEVE


async def test_whole_course_of_arithmetic() -> None:
    """From the question to the answer, over the real calculator."""
    answer = await World().begin(text="What is 6 * 7?").run(Told())
    assert (answer.text, answer.finish_reason) == ("6 * 7 = 42", FinishReason.STOP)
    assert [timing.stage for timing in answer.timings] == ["plan", "tool", "plan"]


async def test_model_chooses_among_the_tools_on_offer() -> None:
    """It is shown them, fills in a form, and its call is the caller's to run where the tool is."""
    step = Step(text="Umbrella in Bonn?", tools=(WEATHER,))
    step.advise(action="tool", calls=[BONN])
    assert await step.take() is State.CALL
    (call,) = step.course.plan.calls
    assert (call.tool, call.arguments, call.caller_runs) == ("weather", {"city": "Bonn"}, True)
    (generation,) = step.world.generator.advised
    assert isinstance(generation.prompt, Chat)
    assert "weather: The weather." in generation.prompt.messages[0].content
    form = generation.writing.structured_output
    assert form is not None
    assert [
        each["properties"]["tool"]["const"]
        for each in json.loads(str(form.value))["properties"]["calls"]["items"]["anyOf"]
    ] == [
        "weather",
        "calculator",
    ]


async def test_queries_of_the_plan_are_searched_for() -> None:
    """A model that was asked anyway says what to search for, too."""
    step = Step(tools=(WEATHER,))
    step.advise(queries=["leave in days", " ", "leave in days"])
    assert await step.take() is State.RETRIEVE
    assert step.course.plan.queries == ("leave in days",)


async def test_plan_that_cannot_be_followed_is_a_search() -> None:
    """Unknown tools are not called, and nothing is answered from nothing."""
    step = Step(tools=(WEATHER,))
    step.advise(action="tool", calls=[{"tool": "rockets", "arguments": {}}])
    assert await step.take() is State.RETRIEVE
    step.advise(action="direct")
    assert await step.take() is State.RETRIEVE


async def test_conversation_may_hold_the_answer() -> None:
    """What was said before can be answered from without a search."""
    step = Step(session=None, history=(Exchange("Leave?", "25 days."),), text="In Spanish, please", tools=(WEATHER,))
    step.advise(action="direct")
    assert await step.take() is State.WRITE


@pytest.mark.parametrize(
    ("said", "reason"),
    [("no form", "UNSUPPORTED_BY_ENGINE"), (Unavailable("ENGINE_UNAVAILABLE", "died"), "ENGINE_UNAVAILABLE")],
)
async def test_failed_planning_is_left_out(said: Any, reason: str) -> None:
    """The question is searched for, and the answer says why no tool was called."""
    step = Step(tools=(WEATHER,))
    step.world.generator.advice = {PLANS: said}
    assert await step.take() is State.RETRIEVE
    assert step.course.answer.degradations == (Degradation("plan", reason),)


async def test_tools_without_a_language_model() -> None:
    """Nobody can choose: the caller's are left out, the other collections searched beside this one."""
    step = Step(EXTRACTIVE, tools=(WEATHER,), planning=HR)
    assert await step.take() is State.CALL
    assert step.course.answer.degradations == (Degradation("plan", "UNSUPPORTED_BY_ENGINE"),)
    assert (step.course.plan.action, [call.tool for call in step.course.plan.calls]) == (Action.SEVERAL, ["search"])
    step.answered("Found passages [1].")
    assert await step.take() is State.RETRIEVE


async def test_model_plans_again_only_where_it_wants_to_or_a_call_failed() -> None:
    """Otherwise the answer is written, or searched for, with what the tools said."""
    for action, more, result, state, asked in (
        ("tool", False, "Rain.", State.WRITE, 1),
        ("several", False, "Rain.", State.RETRIEVE, 1),
        ("tool", True, "Rain.", State.CALL, 2),
        ("tool", False, None, State.CALL, 2),
    ):
        step = Step(text="Umbrella?", tools=(WEATHER,))
        step.advise(action=action, calls=[BONN], more=more)
        await step.take()
        step.answered(result)
        assert (await step.take(), step.asked) == (state, asked)


async def test_rounds_of_tools_are_bounded() -> None:
    """A model that always wants more writes in the end."""
    step = Step(text="Umbrella?", tools=(WEATHER,))
    step.advise(action="tool", calls=[BONN], more=True)
    rounds = 0
    while await step.take() is State.CALL:
        step.answered("Rain.")
        rounds += 1
    assert rounds == step.course.ports.limits.planning.max_tool_rounds


async def test_call_that_must_be_made_is_all_that_the_form_allows() -> None:
    """Where the caller asks for a call, one of the caller's tools is called, whatever the question."""
    step = Step(text="Hello!", tools=(WEATHER,), planning=Planning(must_call=True))
    step.advise(action="tool", calls=[BONN])
    assert await step.take() is State.CALL
    form = step.world.generator.advised[0].writing.structured_output
    assert form is not None
    properties = json.loads(str(form.value))["properties"]
    assert properties["action"] == {"enum": ["tool"]}
    assert properties["calls"]["minItems"] == len(properties["calls"]["items"]["anyOf"]) == 1


async def test_results_that_the_caller_brings_are_shown_to_the_planner() -> None:
    """An answer that goes on after the caller's tools have run rests on what they said."""
    exchange = ToolExchange(ToolCall("1", "weather", {"city": "Bonn"}, caller_runs=True), ToolResult("1", "Rain."))
    step = Step(text="Umbrella?", tools=(WEATHER,), tool_exchanges=(exchange,))
    step.advise(action="direct")
    assert await step.take() is State.WRITE
    prompt = step.world.generator.advised[0].prompt
    assert isinstance(prompt, Chat)
    assert "Rain." in prompt.messages[-1].content
