"""Tools that an answer may call: the mesh's own and the caller's."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

from gateway.failures import Failure
from meshkit.errors import InvalidArgument

_CUT = " [cut]"


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

    def cut(self, max_bytes: int) -> Self:
        """The result with so much of its content, which says that it was cut; letters stay whole."""
        data = self.content.encode()
        if len(data) <= max_bytes:
            return self
        return replace(self, content=data[:max_bytes].decode(errors="ignore") + _CUT)


@dataclass(frozen=True, slots=True)
class ToolExchange:
    """A call and what it answered."""

    call: ToolCall
    result: ToolResult

    def cut(self, max_bytes: int) -> Self:
        """The exchange with its result cut."""
        return replace(self, result=self.result.cut(max_bytes))


@dataclass(frozen=True, slots=True)
class ToolLimits:
    """What the tools of one answer may take; `caller_timeout_s` is for the caller's, which may ask a person."""

    timeout_s: float = 10.0
    caller_timeout_s: float = 60.0
    max_calls: int = 8
    max_result_bytes: int = 16384


class ServerTool(Protocol):
    """A tool of the mesh's own."""

    @property
    def tool(self) -> Tool:
        """What a model is told of it."""
        ...

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """What it answers, as text for the model, to arguments that its schema allows; raises MeshError."""
        ...


def tool_failed(tool: str, why: str) -> InvalidArgument:
    """The error of a tool that cannot do what it is asked to."""
    return InvalidArgument("TOOL_FAILED", f"{tool}: {why}", metadata={"tool": tool})
