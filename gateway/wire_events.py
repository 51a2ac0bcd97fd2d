"""The events of an answer as messages of the contract."""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message
from google.rpc import status_pb2

from gateway.answers import Answer, Citation, Grounding, Timing
from gateway.events import Event, Failed, Heartbeat, Numbered, Retrieved, Stage, Started, Token
from gateway.failures import Failure
from gateway.generation import Usage
from gateway.journal import Record
from gateway.retrieval import Hit
from gateway.tools import ToolCall, ToolResult
from gateway.wire import (
    write_chunk,
    write_citation,
    write_degradations,
    write_duration,
    write_session_name,
    write_span,
    write_struct,
)
from meshkit import status
from ragmesh.common.v1 import usage_pb2
from ragmesh.gateway.v1 import answers_pb2, events_pb2
from ragmesh.retriever.v1 import retriever_pb2


def write_answer(answer: Answer) -> events_pb2.Answer:
    return events_pb2.Answer(
        name=f"answers/{answer.id}",
        session=write_session_name(answer.session),
        collection=answer.collection,
        question=answer.question,
        text=answer.text,
        citations=map(write_citation, answer.citations),
        finish_reason=events_pb2.FinishReason.ValueType(answer.finish_reason.value),
        abstention=events_pb2.AbstentionReason.ValueType(answer.abstention.value),
        error=_write_failure(answer.failure) if answer.failure else None,
        model=answer.model,
        usage=_write_usage(answer.usage),
        timings=usage_pb2.Timings(timings=map(_write_timing, answer.timings)),
        degradations=write_degradations(answer.degradations),
        grounding=map(_write_grounding, answer.grounding),
        cached=answer.cached,
        tool_calls=map(_write_tool_call, answer.tool_calls),
    )


def write_event(numbered: Numbered) -> events_pb2.AnswerEvent:
    """The event as the contract has it; tokens, which are many, without the time."""
    message = events_pb2.AnswerEvent(sequence=numbered.sequence)
    event = numbered.event
    if isinstance(event, Token):
        message.token.text = event.text
        message.token.token_count = event.token_count
        return message
    message.elapsed.CopyFrom(write_duration(numbered.elapsed_s))
    field, write = _FIELDS[type(event)]
    getattr(message, field).CopyFrom(write(event))
    return message


def write_explanation(answer: Answer, record: Record | None) -> answers_pb2.ExplainAnswerResponse:
    """How the answer came about, as far as that is known."""
    response = answers_pb2.ExplainAnswerResponse(answer=write_answer(answer))
    for numbered in record.events if record else ():
        if isinstance(numbered.event, Retrieved):
            response.retrieved.append(_write_retrieved(numbered.event))
        if not isinstance(numbered.event, Token):
            response.events.append(write_event(numbered))
    if record and record.background:
        response.plan.update(record.background.plan)
        response.prompt = record.background.prompt
    return response


def _write_started(event: Started) -> events_pb2.Started:
    return events_pb2.Started(
        answer=f"answers/{event.answer}",
        session=write_session_name(event.session),
        collection=event.collection,
        model=event.model,
        cached=event.cached,
    )


def _write_stage(event: Stage) -> events_pb2.Stage:
    return events_pb2.Stage(
        stage=event.stage,
        state=events_pb2.Stage.State.ValueType(event.state.value),
        duration=write_duration(event.duration_s) if event.duration_s else None,
        detail=write_struct(event.detail) if event.detail else None,
    )


def _write_retrieved(event: Retrieved) -> events_pb2.Retrieved:
    return events_pb2.Retrieved(
        query=event.query,
        hits=map(_write_hit, event.hits),
        degradations=write_degradations(event.degradations),
    )


def _write_hit(hit: Hit) -> retriever_pb2.Hit:
    return retriever_pb2.Hit(chunk=write_chunk(hit.chunk), score=hit.score, window=map(write_chunk, hit.window))


def _write_failure(failure: Failure) -> status_pb2.Status:
    return status.to_status(failure.error())


def _write_usage(usage: Usage) -> usage_pb2.Usage:
    return usage_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
    )


def _write_timing(timing: Timing) -> usage_pb2.Timing:
    return usage_pb2.Timing(
        stage=timing.stage, start=write_duration(timing.start_s), duration=write_duration(timing.duration_s)
    )


def _write_grounding(grounding: Grounding) -> events_pb2.Grounding:
    return events_pb2.Grounding(answer=write_span(grounding.answer), score=grounding.score, numbers=grounding.numbers)


def _write_tool_call(call: ToolCall) -> events_pb2.ToolCall:
    return events_pb2.ToolCall(
        id=call.id, tool=call.tool, arguments=write_struct(call.arguments), caller_runs=call.caller_runs
    )


def _write_tool_result(result: ToolResult) -> events_pb2.ToolResult:
    return events_pb2.ToolResult(
        id=result.id,
        content=result.content,
        error=_write_failure(result.failure) if result.failure else None,
        duration=write_duration(result.duration_s) if result.duration_s else None,
    )


def _write_heartbeat(_event: Heartbeat) -> events_pb2.Heartbeat:
    return events_pb2.Heartbeat()


def _write_error(event: Failed) -> status_pb2.Status:
    return status.to_status(event.error)


# Which field of AnswerEvent each kind of event fills, and how.
_FIELDS: Mapping[type[Event], tuple[str, Callable[[Any], Message]]] = {
    Started: ("started", _write_started),
    Stage: ("stage", _write_stage),
    Retrieved: ("retrieved", _write_retrieved),
    Citation: ("citation", write_citation),
    ToolCall: ("tool_call", _write_tool_call),
    ToolResult: ("tool_result", _write_tool_result),
    Grounding: ("grounding", _write_grounding),
    Usage: ("usage", _write_usage),
    Heartbeat: ("heartbeat", _write_heartbeat),
    Failed: ("error", _write_error),
    Answer: ("final", write_answer),
}
