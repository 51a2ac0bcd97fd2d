"""What is to be done about a question."""

from dataclasses import dataclass
from enum import Enum

from gateway.tools import ToolCall


class Action(Enum):
    """How an answer is come by: without any search, from chunks, by tools, or from chunks and tools together."""

    DIRECT = "direct"
    RETRIEVE = "retrieve"
    TOOL = "tool"
    SEVERAL = "several"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done next.

    `queries` are what to search for, the question as it stands alone first; none for the question as it was asked.
    `calls` are the tools to call first; `more` plans once more when they have answered. A direct answer is `reply` as
    it stands, where there is one.
    """

    action: Action = Action.RETRIEVE
    queries: tuple[str, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    more: bool = False
    reply: str = ""

    @property
    def searches(self) -> bool:
        """Whether chunks are wanted."""
        return self.action in {Action.RETRIEVE, Action.SEVERAL}


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """What planning may take, and everything else before the writing.

    `consult_timeout_s` is for each question to the language model on the way. `reserve_s` of the time allowed are kept
    for telling how an answer ended.
    """

    consult_timeout_s: float = 3.0
    max_retrieval_rounds: int = 1
    max_tool_rounds: int = 3
    history_tokens: int = 2048
    reserve_s: float = 0.25
