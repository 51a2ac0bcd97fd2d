"""The step that calls tools: what they answer, how they fail, and what comes next."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from gateway.answers import FinishReason, Planning
from gateway.awaiting import Awaiting
from gateway.course import Course, State
from gateway.events import Event, Retrieved, Stage
from gateway.plans import Action, Plan
from gateway.retrieval import Degradation
from gateway.steps.calling import call
from gateway.toolbox.offering import tools_on_offer
from gateway.tools import Tool, ToolCall, ToolExchange, ToolLimits, ToolResult
from gateway.web import Page
from meshkit.errors import NotFound, Unavailable
from tests.gateway.in_memory import EXTRACTIVE, QUESTION, Told, World

SUM = ToolCall("1", "calculator", {"expression": "6 * 7"})
BROKEN = ToolCall("2", "calculator", {"expression": "1 / 0"})
SEARCH = ToolCall("3", "search", {"query": "leave"})
WEB = ToolCall("4", "web_search", {"query": "leave"})
WEATHER = Tool("weather", "The weather.", {"properties": {"city": {"type": "string"}}, "required": ["city"]})
BONN = ToolCall("5", "weather", {"city": "Bonn"}, caller_runs=True)
HR = Planning(search_collections=("collections/hr",))


class Step:
    """A course that has come to its calls."""

    def __init__(self, world: World | None = None, awaiting: Awaiting | None = None, **changes: Any) -> None:
        self.told = Told()
        self.world = world or World()
        self.course: Course = self.world.begin(replace(QUESTION, **changes))
        self.course.awaiting = awaiting
        self.course.model = EXTRACTIVE
        self.course._emit = self.told

    async def take(self, *calls: ToolCall, action: Action = Action.TOOL) -> State:
        self.course.plan = Plan(action, calls=calls)
        async with asyncio.timeout(5):
            return await call(self.course)

    @property
    def events(self) -> list[Event]:
        return [event for event in self.told.events if not isinstance(event, Stage)]

    def results(self) -> list[ToolResult]:
        return [replace(event, duration_s=0) for event in self.events if isinstance(event, ToolResult)]

    def failure(self) -> str:
        (result,) = self.results()
        assert result.failure
        return result.failure.reason


class OnePage:
    async def search(self, query: str, limit: int) -> Sequence[Page]:
        return [Page("https://example.com/a", "A", "Five.", 0.5)]


class Faulty:
    async def search(self, query: str, limit: int) -> Sequence[Page]:
        raise ValueError("password=secret")


class Silent:
    async def search(self, query: str, limit: int) -> Sequence[Page]:
        await asyncio.Event().wait()
        return []


async def test_what_was_computed_is_told_and_planned_with() -> None:
    """The call and its result are told in this order, and the exchange stands in the course."""
    step = Step()
    assert await step.take(SUM) is State.PLAN
    assert step.events[0] == SUM
    assert step.results() == [ToolResult("1", "6 * 7 = 42")]
    assert [each.result.content for each in step.course.exchanges] == ["6 * 7 = 42"]
    assert step.course.answer.timings[0].stage == "tool"
    assert step.told.details("tool") == [{"tools": ["calculator"]}]


async def test_calls_beyond_the_most_are_left_out() -> None:
    """The answer says so, and offers no tool any more."""
    step = Step(tool_exchanges=(ToolExchange(SUM, ToolResult("1", "42")),) * 7)
    await step.take(SUM, SUM)
    assert len(step.course.exchanges) == 8
    assert step.course.answer.degradations == (Degradation("tool", "TOOL_FAILED"),)
    assert tools_on_offer(step.course) == ()


async def test_failing_tool_leaves_the_answer_to_go_on() -> None:
    """The failure is a result and a degradation, and the question is planned anew."""
    step = Step()
    assert await step.take(BROKEN) is State.PLAN
    assert step.failure() == "TOOL_FAILED"
    assert step.course.answer.degradations == (Degradation("tool", "TOOL_FAILED"),)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (ToolCall("1", "nothing", {}), "TOOL_NOT_FOUND"),
        (ToolCall("1", "web_search", {"query": "x"}), "TOOL_NOT_FOUND"),
        (ToolCall("1", "search", {"query": "x"}), "TOOL_NOT_FOUND"),
        (ToolCall("1", "nothing", {}, caller_runs=True), "TOOL_NOT_FOUND"),
        (ToolCall("1", "calculator", {}), "TOOL_FAILED"),
        (ToolCall("1", "calculator", {"expression": 7}), "TOOL_FAILED"),
        (ToolCall("1", "weather", {"city": 7}, caller_runs=True), "TOOL_FAILED"),
    ],
)
async def test_call_that_cannot_be_made_fails(wrong: ToolCall, why: str) -> None:
    """A tool that is not offered, or does not take the arguments, is never called, nor is its caller asked to."""
    step = Step(awaiting=Awaiting(), tools=(WEATHER,))
    await step.take(wrong)
    assert step.failure() == why
    assert step.events[0] == replace(wrong, caller_runs=False)


async def test_collections_and_the_web_give_passages_to_cite() -> None:
    """What is found goes on behind what was found before, each passage once; all hits are told by number."""
    step = Step(planning=replace(HR, server_tools=("search", "web_search")))
    step.course.ports = replace(step.course.ports, web=OnePage())
    assert await step.take(SEARCH, WEB, replace(SEARCH, id="6")) is State.PLAN
    assert {each.id: each.content for each in step.results()} == {
        "4": "Found passages [1].",
        "3": "Found passages [2][3].",
        "6": "Found passages [2][3].",
    }
    (retrieved,) = (event for event in step.events if isinstance(event, Retrieved))
    assert retrieved.hits == step.course.found.hits
    assert [hit.chunk.uri for hit in retrieved.hits] == ["https://example.com/a", "", ""]
    assert step.world.retriever.searches[0].collection == "collections/hr"


async def test_search_that_fails_is_a_failing_tool() -> None:
    """Whatever the peer's reason, the result says that the tool failed, in the peer's words."""
    step = Step(planning=HR)
    step.world.retriever.error = Unavailable("PEER_UNAVAILABLE", "retriever is away")
    assert await step.take(SEARCH) is State.PLAN
    assert step.failure() == "TOOL_FAILED"


async def test_fault_of_a_tool_is_its_own() -> None:
    """What nobody foresaw fails the call and not the answer, without its own text."""
    step = Step(planning=Planning(server_tools=("web_search",)))
    step.course.ports = replace(step.course.ports, web=Faulty())
    assert await step.take(WEB) is State.PLAN
    assert step.failure() == "TOOL_FAILED"
    assert "secret" not in str(step.results())


async def test_silent_tool_is_given_up() -> None:
    """A tool has its time, and no more."""
    world = World()
    world.limits = replace(world.limits, tools=ToolLimits(timeout_s=0.01))
    step = Step(world, planning=Planning(server_tools=("web_search",)))
    step.course.ports = replace(step.course.ports, web=Silent())
    assert await step.take(WEB) is State.PLAN
    assert step.failure() == "DEADLINE_EXCEEDED"


async def test_long_results_are_cut() -> None:
    """Between letters, and the result says so; those that came with the question are too."""
    awaiting, world = Awaiting(), World()
    world.limits = replace(world.limits, tools=ToolLimits(max_result_bytes=5))
    given = ToolExchange(BONN, ToolResult("4", "sechs Grad"))
    step = Step(world, awaiting, tools=(WEATHER,), tool_exchanges=(given,))
    taking = asyncio.create_task(step.take(BONN))
    while BONN not in step.events:
        await asyncio.sleep(0)
    awaiting.deliver(ToolResult("5", "fünfüü"))
    await taking
    assert step.results()[0].content == "fünf [cut]"
    assert [each.result.content for each in step.course.exchanges] == ["sechs [cut]", "fünf [cut]"]


async def test_tools_of_the_caller_answer_while_the_answer_waits() -> None:
    """Where the caller can say what its tool answered, the answer goes on with it; one that fails is a failure."""
    awaiting = Awaiting()
    step = Step(awaiting=awaiting, tools=(WEATHER,))
    taking = asyncio.create_task(step.take(BONN, SUM))
    while not {"ToolCall", "ToolResult"} <= set(step.told.names()):
        await asyncio.sleep(0)
    with pytest.raises(NotFound) as raised:
        awaiting.deliver(ToolResult("nobody"))
    assert raised.value.reason == "TOOL_NOT_FOUND"
    for content in ("sunny", "rainy"):
        awaiting.deliver(ToolResult("5", content))
    await taking
    assert [each.result.content for each in step.course.exchanges] == ["sunny", "6 * 7 = 42"]
    awaiting.deliver(ToolResult("5", "late"))


async def test_caller_that_never_answers_is_not_waited_for() -> None:
    """Its tool has its own time; the answer goes on without it."""
    world = World()
    world.limits = replace(world.limits, tools=ToolLimits(caller_timeout_s=0.01))
    step = Step(world, Awaiting(), tools=(WEATHER,))
    assert await step.take(BONN) is State.PLAN
    assert step.failure() == "DEADLINE_EXCEEDED"


async def test_calls_that_cannot_be_answered_end_the_answer() -> None:
    """Whoever asks without a conversation runs the tools and asks again; nothing else is called meanwhile."""
    step = Step(tools=(WEATHER,))
    assert await step.take(BONN, SUM) is State.END
    assert step.events == [BONN]
    assert step.course.answer.finish_reason is FinishReason.TOOL_CALL
    assert step.course.answer.tool_calls == (BONN,)


async def test_caller_that_leaves_stops_its_calls() -> None:
    """Nothing waits for a result that nobody wants any more."""
    awaiting = Awaiting()
    step = Step(awaiting=awaiting, tools=(WEATHER,))
    taking = asyncio.create_task(step.take(BONN))
    while BONN not in step.events:
        await asyncio.sleep(0)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert not awaiting._coming


@pytest.mark.parametrize(
    ("planning", "offered"),
    [
        (Planning(), ["calculator"]),
        (HR, ["calculator", "search"]),
        (Planning(server_tools=("none",)), []),
        (Planning(server_tools=("search", "web_search")), ["web_search"]),
        (replace(HR, server_tools=("search",)), ["search"]),
    ],
)
def test_tools_on_offer(planning: Planning, offered: list[str]) -> None:
    """The web is searched only where the question says so; a caller's tool stands for ours of the same name."""
    step = Step(planning=planning, tools=(WEATHER,))
    step.course.ports = replace(step.course.ports, web=OnePage())
    assert [tool.name for tool in tools_on_offer(step.course)] == ["weather", *offered]
    shadowed = Step(planning=planning, tools=(Tool("calculator", "Mine."),))
    assert [tool.description for tool in tools_on_offer(shadowed.course) if tool.name == "calculator"] == ["Mine."]
