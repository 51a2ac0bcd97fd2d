"""The openai client runs its tools in the usual loop: asked to call, it calls, and asks again."""

import json
from typing import Any

import openai
import pytest

from ragmesh.generator.v1 import generator_pb2
from tests.gateway.conftest import Gateway
from tests.gateway.openai_transport import openai_client
from tests.gateway.peer_doubles import Script

PLANNER = generator_pb2.ModelInfo(
    model="planner", kind=generator_pb2.ENGINE_KIND_LANGUAGE_MODEL, ready=True, structured_output=True
)
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
DIRECT = json.dumps({"action": "direct", "queries": [], "calls": [], "more": False})


def _plan(*cities: str) -> str:
    calls = [{"tool": "weather", "arguments": {"city": city}} for city in cities]
    return json.dumps({"action": "tool", "queries": [], "calls": calls, "more": False})


@pytest.fixture
def planning(gateway: Gateway) -> Gateway:
    """A gateway whose one model plans to ask for the weather in two cities, then to answer."""
    gateway.peers.generator.models = [PLANNER]
    gateway.peers.generator.forms = [_plan("Bonn", "Köln"), DIRECT]
    gateway.peers.generator.script = Script(tokens=["Sunny ", "in both."])
    return gateway


def _answered(message: Any) -> list[Any]:
    """What the tools say to the message's calls."""
    return [
        {"role": "tool", "tool_call_id": call.id, "content": f"sunny in {json.loads(call.function.arguments)['city']}"}
        for call in message.tool_calls
    ]


async def _loop(client: openai.AsyncOpenAI, **options: Any) -> Any:
    """The last completion of the loop."""
    messages: list[Any] = [{"role": "user", "content": "How is it in Bonn and Köln?"}]
    while True:
        given: Any = {"model": "handbook", "messages": messages, "tools": [WEATHER], **options}
        if given.pop("stream", False):
            async with client.chat.completions.stream(**given) as stream:
                completion: Any = await stream.get_final_completion()
        else:
            completion = await client.chat.completions.create(**given)
        choice = completion.choices[0]
        if choice.finish_reason != "tool_calls":
            return completion
        assert not choice.message.content
        messages += [choice.message.model_dump(exclude_none=True), *_answered(choice.message)]


@pytest.mark.parametrize("stream", [False, True])
async def test_loop_ends_with_an_answer(planning: Gateway, stream: bool) -> None:
    """Both calls come at once, whole or streamed, and the model is shown what both tools say."""
    async with openai_client(planning) as client:
        completion = await _loop(client, stream=stream)
    assert completion.choices[0].message.content == "Sunny in both."
    shown = planning.peers.generator.requests[-1].chat.messages[-1].content
    assert "sunny in Bonn" in shown
    assert "sunny in Köln" in shown


async def test_calls_come_one_by_one_where_asked_for(planning: Gateway) -> None:
    """Without parallel calls the loop takes a round for each."""
    planning.peers.generator.forms = [_plan("Bonn", "Köln"), _plan("Köln"), DIRECT]
    async with openai_client(planning) as client:
        await _loop(client, parallel_tool_calls=False)
    assert not planning.peers.generator.forms


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_tool_that_must_be_called_is(planning: Gateway, choice: Any) -> None:
    """The model is held to a plan that calls it, even where rules would answer."""
    question: Any = [{"role": "user", "content": "Hello!"}]
    async with openai_client(planning) as client:
        completion = await client.chat.completions.create(
            model="handbook", messages=question, tools=[WEATHER], tool_choice=choice
        )
    assert [call.function.name for call in completion.choices[0].message.tool_calls or ()] == ["weather", "weather"]  # type: ignore[union-attr]
    form = json.loads(planning.peers.generator.requests[0].structured_output.json_schema)
    assert form["properties"]["calls"]["minItems"] == 1


async def test_no_tool_is_called_where_none_may_be(planning: Gateway) -> None:
    """The model is not even asked for a plan."""
    question: Any = [{"role": "user", "content": "How is it?"}]
    async with openai_client(planning) as client:
        completion = await client.chat.completions.create(
            model="handbook", messages=question, tools=[WEATHER], tool_choice="none"
        )
    assert completion.choices[0].message.tool_calls is None
    assert len(planning.peers.generator.requests) == 1
