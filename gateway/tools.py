"""Tools that an answer may call: the mesh's own and the caller's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.failures import Failure


@dataclass(frozen=True, slots=True)
class Tool:
    """What a model is told of a tool; `parameters_schema` is the JSON schema of its arguments."""

    name: str
    description: str
    parameters_schema: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool; `id` names it within the answer, `caller_runs` tells the caller to run it."""

    id: str
    tool: str
    arguments: Mapping[str, Any]
    caller_runs: bool = False


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered: text for the model, or why it failed."""

    id: str
    content: str = ""
    failure: Failure | None = None
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ToolExchange:
    """A call and what it answered."""

    call: ToolCall
    result: ToolResult
