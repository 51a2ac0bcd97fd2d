"""Tools in the form of OpenAI's API: what callers offer, what they were asked to call, and what came of it."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Json, JsonValue

from gateway.tools import Tool, ToolCall, ToolExchange, ToolResult

_NAME = r"^[a-zA-Z0-9_-]{1,64}$"


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Function(_Body):
    name: str = Field(pattern=_NAME)
    description: str | None = Field(None, max_length=4096)
    parameters: dict[str, JsonValue] | None = None


class FunctionTool(_Body):
    """A function that the caller offers."""

    type: Literal["function"]
    function: _Function

    def tool(self) -> Tool:
        function = self.function
        return Tool(function.name, function.description or "", function.parameters or {})


class _FunctionName(_Body):
    name: str


class NamedTool(_Body):
    """The choice of one function."""

    type: Literal["function"]
    function: _FunctionName


ToolChoice = Literal["none", "auto", "required"] | NamedTool


class _CalledFunction(_Body):
    name: str = Field(pattern=_NAME)
    arguments: Annotated[Json[dict[str, Any]], Field(description="A JSON object as text.")]


class CalledTool(_Body):
    """A call that the caller was asked to make."""

    id: str = Field(min_length=1, max_length=256)
    type: Literal["function"] = "function"
    function: _CalledFunction

    def exchange(self, answered: str) -> ToolExchange:
        call = ToolCall(self.id, self.function.name, self.function.arguments, caller_runs=True)
        return ToolExchange(call, ToolResult(self.id, answered))


def describe_calls(calls: Sequence[ToolCall], *, in_stream: bool) -> list[dict[str, Any]]:
    """The calls as a message has them, or as a stream's delta, which numbers them."""
    return [
        {
            **({"index": index} if in_stream else {}),
            "id": call.id,
            "type": "function",
            "function": {"name": call.tool, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
        }
        for index, call in enumerate(calls)
    ]
