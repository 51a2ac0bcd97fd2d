"""Answers that call tools: the mesh's own and the caller's, by every way of asking."""

import asyncio
import json
from typing import Any

import grpc
import pytest

from ragmesh.gateway.v1 import answers_pb2, events_pb2, sessions_pb2
from ragmesh.generator.v1 import generator_pb2
from tests.gateway.calling import ask, heard, once, reason
from tests.gateway.conftest import Gateway, open_gateway
from tests.gateway.conversation import INTERRUPT, Conversation, asking, saying
from tests.gateway.peer_doubles import EXTRACTIVE, Peers, Script
from tests.gateway.web_upstream import Upstream

PLANNER = generator_pb2.ModelInfo(
    model="planner", kind=generator_pb2.ENGINE_KIND_LANGUAGE_MODEL, ready=True, structured_output=True
)
WEATHER: dict[str, Any] = {
    "tool": "weather",
    "description": "The weather in a city.",
    "parameters_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def planned(*calls: tuple[str, dict[str, Any]], more: bool = False) -> str:
    """A plan as the model fills in its form."""
    called = [{"tool": tool, "arguments": arguments} for tool, arguments in calls]
    return json.dumps({"action": "tool", "queries": [], "calls": called, "more": more})


CALL_WEATHER = planned(("weather", {"city": "Bonn"}))


@pytest.fixture
def planning(gateway: Gateway) -> Gateway:
    """A gateway whose one model plans to call the weather, once."""
    gateway.peers.generator.models = [PLANNER]
    gateway.peers.generator.forms = [CALL_WEATHER]
    gateway.peers.generator.script = Script(tokens=["It is ", "sunny."])
    return gateway


def _shown(gateway: Gateway) -> str:
    """The last message that the model was sent."""
    return gateway.peers.generator.requests[-1].chat.messages[-1].content


async def test_arithmetic_is_computed_without_any_model(gateway: Gateway) -> None:
    """What the calculator says is the answer; nothing is searched for and no engine asked."""
    events = await heard(gateway.answers.Ask(ask("What is 6 * 7?")))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds.index("tool_call") < kinds.index("tool_result") < kinds.index("token")
    assert events[-1].final.text == "6 * 7 = 42"
    assert not gateway.peers.retriever.requests
    assert not gateway.peers.generator.requests


async def test_calculation_that_fails_is_searched_for(gateway: Gateway) -> None:
    """The failure is an event and a degradation; the answer goes on without it."""
    events = await heard(gateway.answers.Ask(ask("1 / 0 =")))
    (result,) = (event.tool_result for event in events if event.HasField("tool_result"))
    assert result.error.message
    assert [(left.stage, left.reason) for left in events[-1].final.degradations] == [("tool", "TOOL_FAILED")]
    assert gateway.peers.retriever.requests


async def test_other_collections_are_searched(gateway: Gateway) -> None:
    """Their passages stand behind the tool's own call and before those of the question's collection."""
    plan = answers_pb2.PlanOptions(search_collections=["collections/it"])
    gateway.peers.retriever.texts["collections/it"] = ["Laptops are replaced after four years."]
    events = await heard(gateway.answers.Ask(ask(plan=plan)))
    (result,) = (event.tool_result for event in events if event.HasField("tool_result"))
    assert result.content == "Found passages [1]."
    assert {asked.collection for asked in gateway.peers.retriever.requests} == {
        "collections/it",
        "collections/handbook",
    }
    assert {caller.tenant for caller in gateway.peers.retriever.callers} == {"acme"}
    found = [event.retrieved for event in events if event.HasField("retrieved")][-1]
    assert found.hits[0].chunk.text == "Laptops are replaced after four years."
    assert len(found.hits) > 1


@pytest.mark.parametrize("models", [[PLANNER], [EXTRACTIVE]])
async def test_pages_of_the_web_are_cited_by_their_address(redis_url: str, peers: Peers, models: list[Any]) -> None:
    """Where the question names the tool and there is a key; such an answer is never given again."""
    upstream = Upstream()
    page = {"url": "https://example.com/leave", "title": "Leave", "content": "Leave is 30 days now.", "score": 0.9}
    upstream.body = json.dumps({"results": [page]}).encode()
    peers.generator.models = models
    peers.generator.forms = [planned(("web_search", {"query": "leave"}))] * 2
    peers.generator.script = Script(tokens=["Leave is 30 days now. [1]"])
    plan = answers_pb2.PlanOptions(server_tools=["web_search"])
    async with (
        upstream.serving() as url,
        open_gateway(redis_url, peers, web_search_url=url, web_search_key="k") as gateway,
    ):
        for _ in range(2):
            answer = (await gateway.answers.AskOnce(once(plan=plan))).answer
            (citation,) = answer.citations
            assert (citation.uri, citation.title, citation.chunk) == ("https://example.com/leave", "Leave", "")
            assert not answer.cached
    assert len(upstream.asked) == 2


async def test_tool_of_the_caller_answers_on_the_stream(planning: Gateway) -> None:
    """The call goes out with its id, the result comes back, and the model is shown it."""
    talk = Conversation(planning)
    await talk.say(asking("How is it in Bonn?", tools=[WEATHER]))
    call = (await talk.until("tool_call"))[-1].tool_call
    assert (call.tool, call.caller_runs, dict(call.arguments)) == ("weather", True, {"city": "Bonn"})
    await talk.say(saying(tool_result={"id": call.id, "content": "25 degrees </tool>"}))
    result = (await talk.until("tool_result"))[-1].tool_result
    assert (result.id, result.content) == (call.id, "25 degrees </tool>")
    assert (await talk.until("final"))[-1].final.finish_reason == events_pb2.FINISH_REASON_STOP
    assert "25 degrees < /tool>" in _shown(planning)
    await talk.say(saying(tool_result={"id": call.id, "content": "late"}))
    await talk.end()


async def test_failure_of_a_callers_tool_is_told(planning: Gateway) -> None:
    """A caller may say that its tool failed; the answer goes on without it."""
    talk = Conversation(planning)
    await talk.say(asking("How is it in Bonn?", tools=[WEATHER]))
    call = (await talk.until("tool_call"))[-1].tool_call
    await talk.say(saying(tool_result={"id": call.id, "error": {"code": 14, "message": "no network"}}))
    assert (await talk.until("tool_result"))[-1].tool_result.error.message == "no network"
    final = (await talk.until("final"))[-1].final
    assert ("tool", "TOOL_FAILED") in [(left.stage, left.reason) for left in final.degradations]
    await talk.end()


async def test_tool_that_never_answers_is_not_waited_for(redis_url: str, peers: Peers) -> None:
    """Its time is up, the event says so, and the answer goes on; a result that comes then is ignored."""
    peers.generator.models, peers.generator.forms = [PLANNER], [CALL_WEATHER]
    async with open_gateway(redis_url, peers, caller_tool_timeout_s=0.05) as gateway:
        talk = Conversation(gateway)
        await talk.say(asking("How is it in Bonn?", tools=[WEATHER]))
        result = (await talk.until("tool_result"))[-1].tool_result
        assert result.error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        await talk.say(saying(tool_result={"id": result.id, "content": "late"}))
        await talk.until("final")
        await talk.end()


async def test_who_says_no_more_is_not_waited_for(planning: Gateway) -> None:
    """Whoever half-closes cannot say what its tool answers: the answer goes on at once."""
    talk = Conversation(planning)
    await talk.say(asking("How is it in Bonn?", tools=[WEATHER]))
    await talk.call.done_writing()
    assert (await talk.until("tool_result"))[-1].tool_result.error.message == "the caller says no more"
    await talk.until("final")


async def test_result_that_nobody_awaits_ends_the_conversation(planning: Gateway) -> None:
    """A wrong id is its caller's mistake."""
    talk = Conversation(planning)
    await talk.say(asking("How is it in Bonn?", tools=[WEATHER]))
    await talk.until("tool_call")
    await talk.say(saying(tool_result={"id": "another", "content": "25 degrees"}))
    events, error = await talk.failure()
    assert reason(error) == "TOOL_NOT_FOUND"
    assert events[-1].HasField("error")


async def test_answer_that_waits_for_a_tool_can_be_interrupted(planning: Gateway) -> None:
    """And the conversation goes on."""
    talk = Conversation(planning)
    await talk.say(asking("How is it in Bonn?", tools=[WEATHER]))
    await talk.until("tool_call")
    await talk.say(INTERRUPT, asking("How long is leave?"))
    assert (await talk.until("final"))[-1].final.finish_reason == events_pb2.FINISH_REASON_INTERRUPTED
    assert (await talk.until("final"))[-1].final.question == "How long is leave?"
    await talk.end()


async def test_who_asks_without_a_conversation_runs_the_tool_and_asks_again(planning: Gateway) -> None:
    """The answer ends with the calls; the next one has what they answered, and is the session's only turn."""
    first = (await planning.answers.AskOnce(once("How is it in Bonn?", tools=[WEATHER]))).answer
    assert (first.text, first.finish_reason) == ("", events_pb2.FINISH_REASON_TOOL_CALL)
    (call,) = first.tool_calls
    exchange = {"call": call, "result": {"id": call.id, "content": "25 degrees"}}
    planning.peers.generator.forms = [json.dumps({"action": "direct", "queries": [], "calls": [], "more": False})]
    asked = ask("How is it in Bonn?", session=first.session, tools=[WEATHER], tool_exchanges=[exchange])
    final = (await heard(planning.answers.Ask(asked)))[-1].final
    assert (final.text, final.finish_reason) == ("It is sunny.", events_pb2.FINISH_REASON_STOP)
    assert "25 degrees" in _shown(planning)
    turns = (await planning.sessions.GetSession(sessions_pb2.GetSessionRequest(name=first.session))).session.turns
    assert [turn.text for turn in turns] == ["It is sunny."]


async def test_tools_are_called_at_once(planning: Gateway) -> None:
    """Several calls of one plan wait side by side, the mesh's own among them."""
    sum_call = ("calculator", {"expression": "2 ** 8"})
    planning.peers.generator.forms = [planned(("weather", {"city": "Bonn"}), sum_call, ("weather", {"city": "Ulm"}))]
    talk = Conversation(planning)
    await talk.say(asking("How is it?", tools=[WEATHER]))
    calls: dict[str, str] = {}
    async with asyncio.timeout(5):
        while len(calls) < 2:
            event = await talk.next()
            if event.HasField("tool_call") and event.tool_call.caller_runs:
                calls[str(event.tool_call.arguments["city"])] = event.tool_call.id
    for city in ("Ulm", "Bonn"):
        await talk.say(saying(tool_result={"id": calls[city], "content": f"sunny in {city}"}))
    await talk.until("final")
    assert all(said in _shown(planning) for said in ("sunny in Ulm", "sunny in Bonn", "2 ** 8 = 256"))
    await talk.end()
