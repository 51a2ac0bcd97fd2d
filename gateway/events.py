"""The events of an answer's course, and their numbers."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from gateway.answers import Answer, Citation, Grounding
from gateway.generation import Usage
from gateway.retrieval import Degradation, Hit
from gateway.tools import ToolCall, ToolResult
from meshkit.errors import MeshError


@dataclass(frozen=True, slots=True)
class Started:
    """The answer has begun."""

    answer: str
    session: str
    collection: str
    model: str
    cached: bool = False


class StageState(Enum):
    """Whether a stage began or ended; the values are the contract's numbers."""

    STARTED = 1
    DONE = 2
    SKIPPED = 3


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage began or ended."""

    stage: str
    state: StageState
    duration_s: float = 0.0
    detail: Mapping[str, str | float | list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Chunks were found; the place of a hit, from 1, is the number by which the answer cites it."""

    query: str
    hits: tuple[Hit, ...]
    degradations: tuple[Degradation, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """The text goes on."""

    text: str
    token_count: int = 0


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing happened for a while; the answer goes on."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer failed: the last event."""

    error: MeshError


# An Answer is the final event; what has a module of its own is an event as it stands.
Event = (
    Started
    | Stage
    | Retrieved
    | Token
    | Citation
    | ToolCall
    | ToolResult
    | Grounding
    | Usage
    | Heartbeat
    | Failed
    | Answer
)
Emit = Callable[[Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Numbered:
    """An event with its number, from 1 without gaps, and its time from the arrival of the question."""

    sequence: int
    elapsed_s: float
    event: Event


class Numbering:
    """Gives the events of one answer their numbers."""

    def __init__(self) -> None:
        self.last = 0
        self._begin_s = time.monotonic()

    def number(self, event: Event) -> Numbered:
        self.last += 1
        return Numbered(self.last, time.monotonic() - self._begin_s, event)
