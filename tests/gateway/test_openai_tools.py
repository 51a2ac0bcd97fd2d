"""Tools as OpenAI's callers send them, and calls as they read them."""

import json
from typing import Any

import pytest

from gateway.answers import Answer, FinishReason, Question
from gateway.openai_bodies import ChatRequest, parse
from gateway.openai_replies import ChatStream, completion
from gateway.tools import Tool, ToolCall, ToolExchange, ToolResult
from meshkit.errors import InvalidArgument

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": True,
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock"}}
USER = {"role": "user", "content": "How is it in Bonn?"}
CALLED = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bönn"}'}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALLED]}
ANSWERED = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
BONN = ToolCall("c1", "weather", {"city": "Bönn"}, caller_runs=True)


def _question(*messages: Any, **fields: Any) -> Question:
    body = {"model": "handbook", "messages": messages or [USER], **fields}
    return parse(ChatRequest, json.dumps(body).encode()).question()


def test_functions_are_tools() -> None:
    """With their schemas; one that has none takes anything."""
    asked = _question(tools=[WEATHER, CLOCK])
    assert asked.tools == (
        Tool("weather", "The weather.", WEATHER["function"]["parameters"]),
        Tool("clock", "", {}),
    )
    assert (asked.planning.must_call, asked.planning.parallel_calls) == (False, True)
    assert not _question(tools=[WEATHER], parallel_tool_calls=False).planning.parallel_calls


@pytest.mark.parametrize(
    ("choice", "names", "must"),
    [
        ("auto", ["weather", "clock"], False),
        (None, ["weather", "clock"], False),
        ("none", [], False),
        ("required", ["weather", "clock"], True),
        ({"type": "function", "function": {"name": "clock"}}, ["clock"], True),
    ],
)
def test_choice_of_tools(choice: Any, names: list[str], must: bool) -> None:
    """A tool may, may not or must be called; one that is named is the only one."""
    asked = _question(tools=[WEATHER, CLOCK], tool_choice=choice)
    assert [tool.name for tool in asked.tools] == names
    assert asked.planning.must_call is must


def test_messages_of_tools_are_exchanges() -> None:
    """What was called since the last question goes on with it; earlier calls are past."""
    earlier = [USER, ASKED, ANSWERED, {"role": "assistant", "content": "It is sunny."}]
    asked = _question(*earlier, USER, ASKED, ANSWERED, tools=[WEATHER])
    assert asked.tool_exchanges == (ToolExchange(BONN, ToolResult("c1", "sunny")),)
    assert [turn.text for turn in asked.history] == ["It is sunny."]


@pytest.mark.parametrize(
    ("messages", "fields", "param"),
    [
        ([USER], {"tools": [{"type": "function"}]}, "tools[0].function"),
        ([USER], {"tools": [{"type": "function", "function": {"name": "no name"}}]}, "tools[0].function.name"),
        ([USER], {"tools": [CLOCK] * 129}, "tools"),
        ([USER], {"tool_choice": "required"}, "tool_choice"),
        ([USER], {"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ([USER], {"tools": [CLOCK], "tool_choice": "perhaps"}, "tool_choice"),
        ([USER, ASKED], {}, "messages"),
        ([USER, ANSWERED], {}, "messages[1].tool_call_id"),
        ([USER, {**ASKED, "tool_calls": [{**CALLED, "id": ""}]}], {}, "messages[1].tool_calls[0].id"),
        (
            [USER, {**ASKED, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{"}}]}],
            {},
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            [USER, {**ASKED, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "[]"}}]}],
            {},
            "messages[1].tool_calls[0].function.arguments",
        ),
    ],
)
def test_wrong_tools_are_refused(messages: list[Any], fields: dict[str, Any], param: str) -> None:
    """With the place of the mistake."""
    with pytest.raises(InvalidArgument) as raised:
        _question(*messages, **fields)
    assert raised.value.reason == "INVALID_BODY"
    assert raised.value.metadata["param"].startswith(param)


ENDED = Answer("a", "", "collections/handbook", "q", "", FinishReason.TOOL_CALL, tool_calls=(BONN,))


def test_calls_are_part_of_the_message() -> None:
    """The text is null, the arguments are JSON as text."""
    choice = json.loads(completion(ENDED, "handbook", 0))["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [CALLED]


def test_calls_are_streamed_with_their_number() -> None:
    """The delta before the end has them whole."""
    frames = list(ChatStream("handbook", 0, include_usage=False).write(ENDED))
    choice = json.loads(frames[1].removeprefix(b"data: "))["choices"][0]
    assert choice["delta"]["tool_calls"] == [{"index": 0, **CALLED}]
    assert choice["finish_reason"] == "tool_calls"
