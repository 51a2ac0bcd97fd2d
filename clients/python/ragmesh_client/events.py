"""The steps of an answer, as `Client.ask` yields them: one class for each member of `AnswerEvent.event`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.rpc import status_pb2

from ragmesh.common.v1 import chunk_pb2, usage_pb2
from ragmesh.gateway.v1 import events_pb2
from ragmesh.retriever.v1 import retriever_pb2
from ragmesh_client.errors import RagmeshError, from_status


@dataclass(frozen=True)
class Event:
    """A step in the course of an answer."""

    sequence: int
    """Its number: 1, 2, 3, with no gap."""
    proto: events_pb2.AnswerEvent = field(repr=False)
    """The message as it came."""


@dataclass(frozen=True)
class Started(Event):
    """The answer has begun."""

    answer: str
    session: str
    collection: str
    model: str
    cached: bool


@dataclass(frozen=True)
class StageChanged(Event):
    """A stage began, ended or was left out."""

    stage: str
    state: str
    """`STARTED`, `DONE` or `SKIPPED`."""
    duration_s: float


@dataclass(frozen=True)
class Retrieved(Event):
    """Chunks were found; the place in `hits`, from 1, is the number by which the answer cites a chunk."""

    query: str
    hits: Sequence[retriever_pb2.Hit]
    degradations: Sequence[retriever_pb2.Degradation]


@dataclass(frozen=True)
class Token(Event):
    """The text goes on."""

    text: str


@dataclass(frozen=True)
class Cited(Event):
    """A claim was tied to its chunk."""

    citation: chunk_pb2.Citation


@dataclass(frozen=True)
class ToolCalled(Event):
    """A tool is called."""

    call: events_pb2.ToolCall


@dataclass(frozen=True)
class ToolAnswered(Event):
    """A tool has answered."""

    result: events_pb2.ToolResult


@dataclass(frozen=True)
class Grounded(Event):
    """How well a sentence is supported."""

    grounding: events_pb2.Grounding


@dataclass(frozen=True)
class Used(Event):
    """What has been used so far, in tokens."""

    usage: usage_pb2.Usage


@dataclass(frozen=True)
class Heartbeat(Event):
    """Nothing happened for a while; the answer goes on."""


@dataclass(frozen=True)
class Failed(Event):
    """The answer failed; `Client.ask` raises `error` next."""

    error: RagmeshError


@dataclass(frozen=True)
class Final(Event):
    """The answer is complete."""

    answer: events_pb2.Answer


def from_proto(event: events_pb2.AnswerEvent) -> Event | None:
    """The event of a message; None for a kind that this client does not know yet."""
    kind = event.WhichOneof("event")
    if kind is None:
        return None
    cls, read = _READERS[kind]
    return cls(event.sequence, event, **read(getattr(event, kind)))


def _started(started: events_pb2.Started) -> dict[str, Any]:
    return {
        "answer": started.answer,
        "session": started.session,
        "collection": started.collection,
        "model": started.model,
        "cached": started.cached,
    }


def _stage(stage: events_pb2.Stage) -> dict[str, Any]:
    return {
        "stage": stage.stage,
        "state": events_pb2.Stage.State.Name(stage.state).removeprefix("STATE_"),
        "duration_s": stage.duration.ToTimedelta().total_seconds(),
    }


def _retrieved(found: events_pb2.Retrieved) -> dict[str, Any]:
    return {"query": found.query, "hits": tuple(found.hits), "degradations": tuple(found.degradations)}


def _error(status: status_pb2.Status) -> dict[str, Any]:
    return {"error": from_status(status)}


def _whole(name: str) -> Callable[[Any], dict[str, Any]]:
    return lambda message: {name: message}


_READERS: Mapping[str, tuple[type[Event], Callable[[Any], dict[str, Any]]]] = {
    "started": (Started, _started),
    "stage": (StageChanged, _stage),
    "retrieved": (Retrieved, _retrieved),
    "token": (Token, lambda token: {"text": token.text}),
    "citation": (Cited, _whole("citation")),
    "tool_call": (ToolCalled, _whole("call")),
    "tool_result": (ToolAnswered, _whole("result")),
    "grounding": (Grounded, _whole("grounding")),
    "usage": (Used, _whole("usage")),
    "heartbeat": (Heartbeat, lambda _: {}),
    "error": (Failed, _error),
    "final": (Final, _whole("answer")),
}
