"""The gateway's dataclasses as messages of the contract, and back."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from gateway.answers import Answer, Citation, Failure, Timing
from gateway.events import (
    Event,
    Failed,
    Heartbeat,
    Numbered,
    Retrieved,
    Stage,
    Started,
    Token,
)
from gateway.feedback import Feedback
from gateway.generation import Model, Usage
from gateway.retrieval import Chunk, Degradation, Hit, Span
from gateway.sessions import Session, Turn
from meshkit import errors, status
from ragmesh.common.v1 import chunk_pb2, usage_pb2
from ragmesh.gateway.v1 import events_pb2, feedback_pb2, sessions_pb2
from ragmesh.generator.v1 import generator_pb2
from ragmesh.retriever.v1 import retriever_pb2


def read_chunk(message: chunk_pb2.Chunk) -> Chunk:
    return Chunk(
        name=message.name,
        document=message.document,
        text=message.text,
        source=_read_span(message.source),
        ordinal=message.ordinal,
        page=message.page,
        heading_path=tuple(message.heading_path),
        title=message.title,
        uri=message.uri,
        token_count=message.token_count,
        metadata=MessageToDict(message.metadata) if message.HasField("metadata") else {},
        content_hash=message.content_hash,
    )


def read_citation(message: chunk_pb2.Citation) -> Citation:
    return Citation(
        number=message.number,
        answer=_read_span(message.answer),
        chunk=message.chunk,
        document=message.document,
        source=_read_span(message.source),
        title=message.title,
        uri=message.uri,
        page=message.page,
        heading_path=tuple(message.heading_path),
        quote=message.quote,
        verbatim=message.verbatim,
    )


def write_citation(citation: Citation) -> chunk_pb2.Citation:
    return chunk_pb2.Citation(
        number=citation.number,
        answer=_write_span(citation.answer),
        chunk=citation.chunk,
        document=citation.document,
        title=citation.title,
        uri=citation.uri,
        page=citation.page,
        heading_path=citation.heading_path,
        source=_write_span(citation.source),
        quote=citation.quote,
        verbatim=citation.verbatim,
    )


def write_answer(answer: Answer) -> events_pb2.Answer:
    return events_pb2.Answer(
        name=f"answers/{answer.id}",
        session=_session_name(answer.session),
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
        degradations=_write_degradations(answer.degradations),
    )


def write_event(numbered: Numbered) -> events_pb2.AnswerEvent:
    """The event as the contract has it; tokens, which are many, without the time."""
    message = events_pb2.AnswerEvent(sequence=numbered.sequence)
    if not isinstance(numbered.event, Token):
        message.elapsed.CopyFrom(_duration(numbered.elapsed_s))
    _fill(message, numbered.event)
    return message


def _fill(message: events_pb2.AnswerEvent, event: Event) -> None:
    match event:
        case Token(text, token_count):
            message.token.text = text
            message.token.token_count = token_count
        case Started():
            message.started.CopyFrom(_write_started(event))
        case Stage():
            message.stage.CopyFrom(_write_stage(event))
        case Retrieved():
            message.retrieved.CopyFrom(_write_retrieved(event))
        case Citation():
            message.citation.CopyFrom(write_citation(event))
        case Usage():
            message.usage.CopyFrom(_write_usage(event))
        case Heartbeat():
            message.heartbeat.SetInParent()
        case Failed(error):
            message.error.CopyFrom(status.to_status(error))
        case Answer():
            message.final.CopyFrom(write_answer(event))


def write_session(session: Session) -> sessions_pb2.Session:
    return sessions_pb2.Session(
        name=_session_name(session.id),
        title=session.title,
        turns=map(_write_turn, session.turns),
        create_time=_timestamp(session.create_time),
        update_time=_timestamp(session.update_time),
        expire_time=_timestamp(session.expire_time),
    )


def write_feedback(feedback: Feedback) -> feedback_pb2.Feedback:
    return feedback_pb2.Feedback(
        name=f"answers/{feedback.answer}/feedback/{feedback.id}",
        rating=feedback_pb2.Feedback.Rating.ValueType(feedback.rating.value),
        comment=feedback.comment,
        corrected_citations=map(write_citation, feedback.corrected_citations),
        question=feedback.question,
        text=feedback.text,
        create_time=_timestamp(feedback.create_time),
    )


def write_model(model: Model) -> generator_pb2.ModelInfo:
    kind = generator_pb2.ENGINE_KIND_EXTRACTIVE if model.extractive else generator_pb2.ENGINE_KIND_LANGUAGE_MODEL
    return generator_pb2.ModelInfo(
        model=model.name,
        kind=kind,
        max_model_tokens=model.max_model_tokens,
        engine=model.engine,
        description=model.description,
        ready=model.ready,
        structured_output=model.structured_output,
        lora_adapters=model.lora_adapters,
    )


def _write_chunk(chunk: Chunk) -> chunk_pb2.Chunk:
    return chunk_pb2.Chunk(
        name=chunk.name,
        document=chunk.document,
        ordinal=chunk.ordinal,
        text=chunk.text,
        source=_write_span(chunk.source),
        page=chunk.page,
        heading_path=chunk.heading_path,
        title=chunk.title,
        uri=chunk.uri,
        token_count=chunk.token_count,
        metadata=_struct(chunk.metadata) if chunk.metadata else None,
        content_hash=chunk.content_hash,
    )


def _write_started(event: Started) -> events_pb2.Started:
    return events_pb2.Started(
        answer=f"answers/{event.answer}",
        session=_session_name(event.session),
        collection=event.collection,
        model=event.model,
    )


def _write_stage(event: Stage) -> events_pb2.Stage:
    return events_pb2.Stage(
        stage=event.stage,
        state=events_pb2.Stage.State.ValueType(event.state.value),
        duration=_duration(event.duration_s) if event.duration_s else None,
        detail=_struct(event.detail) if event.detail else None,
    )


def _write_retrieved(event: Retrieved) -> events_pb2.Retrieved:
    return events_pb2.Retrieved(
        query=event.query,
        hits=map(_write_hit, event.hits),
        degradations=_write_degradations(event.degradations),
    )


def _write_hit(hit: Hit) -> retriever_pb2.Hit:
    return retriever_pb2.Hit(chunk=_write_chunk(hit.chunk), score=hit.score, window=map(_write_chunk, hit.window))


def _write_turn(turn: Turn) -> sessions_pb2.Turn:
    return sessions_pb2.Turn(
        answer=f"answers/{turn.answer}",
        question=turn.question,
        text=turn.text,
        citations=map(write_citation, turn.citations),
        finish_reason=events_pb2.FinishReason.ValueType(turn.finish_reason.value),
        create_time=_timestamp(turn.create_time),
    )


def _write_failure(failure: Failure) -> status_pb2.Status:
    member = next(member for member in errors.MeshError.__subclasses__() if member.code == failure.code)
    return status.to_status(member(failure.reason, failure.message))


def _write_degradations(degradations: Iterable[Degradation]) -> list[retriever_pb2.Degradation]:
    return [retriever_pb2.Degradation(stage=left.stage, reason=left.reason) for left in degradations]


def _write_usage(usage: Usage) -> usage_pb2.Usage:
    return usage_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
    )


def _write_timing(timing: Timing) -> usage_pb2.Timing:
    return usage_pb2.Timing(stage=timing.stage, start=_duration(timing.start_s), duration=_duration(timing.duration_s))


def _session_name(id: str) -> str:
    return f"sessions/{id}" if id else ""


def _read_span(span: chunk_pb2.Span) -> Span:
    return Span(span.start, span.end)


def _write_span(span: Span) -> chunk_pb2.Span:
    return chunk_pb2.Span(start=span.start, end=span.end)


def _struct(values: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1_000_000))
    return duration


def _timestamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
