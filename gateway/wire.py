"""The gateway's dataclasses as messages of the contract, and back."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.answers import Citation
from gateway.feedback import Feedback
from gateway.generation import Model
from gateway.retrieval import Chunk, Degradation, Span
from gateway.sessions import Session, Turn
from ragmesh.common.v1 import chunk_pb2
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


def write_chunk(chunk: Chunk) -> chunk_pb2.Chunk:
    return chunk_pb2.Chunk(
        name=chunk.name,
        document=chunk.document,
        ordinal=chunk.ordinal,
        text=chunk.text,
        source=write_span(chunk.source),
        page=chunk.page,
        heading_path=chunk.heading_path,
        title=chunk.title,
        uri=chunk.uri,
        token_count=chunk.token_count,
        metadata=write_struct(chunk.metadata) if chunk.metadata else None,
        content_hash=chunk.content_hash,
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
        answer=write_span(citation.answer),
        chunk=citation.chunk,
        document=citation.document,
        title=citation.title,
        uri=citation.uri,
        page=citation.page,
        heading_path=citation.heading_path,
        source=write_span(citation.source),
        quote=citation.quote,
        verbatim=citation.verbatim,
    )


def write_session(session: Session) -> sessions_pb2.Session:
    return sessions_pb2.Session(
        name=write_session_name(session.id),
        title=session.title,
        turns=map(_write_turn, session.turns),
        create_time=write_timestamp(session.create_time),
        update_time=write_timestamp(session.update_time),
        expire_time=write_timestamp(session.expire_time),
    )


def write_feedback(feedback: Feedback) -> feedback_pb2.Feedback:
    return feedback_pb2.Feedback(
        name=f"answers/{feedback.answer}/feedback/{feedback.id}",
        rating=feedback_pb2.Feedback.Rating.ValueType(feedback.rating.value),
        comment=feedback.comment,
        corrected_citations=map(write_citation, feedback.corrected_citations),
        question=feedback.question,
        text=feedback.text,
        create_time=write_timestamp(feedback.create_time),
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


def _write_turn(turn: Turn) -> sessions_pb2.Turn:
    return sessions_pb2.Turn(
        answer=f"answers/{turn.answer}",
        question=turn.question,
        text=turn.text,
        citations=map(write_citation, turn.citations),
        finish_reason=events_pb2.FinishReason.ValueType(turn.finish_reason.value),
        create_time=write_timestamp(turn.create_time),
    )


def write_degradations(degradations: Iterable[Degradation]) -> list[retriever_pb2.Degradation]:
    return [retriever_pb2.Degradation(stage=left.stage, reason=left.reason) for left in degradations]


def write_session_name(id: str) -> str:
    return f"sessions/{id}" if id else ""


def _read_span(span: chunk_pb2.Span) -> Span:
    return Span(span.start, span.end)


def write_span(span: Span) -> chunk_pb2.Span:
    return chunk_pb2.Span(start=span.start, end=span.end)


def write_struct(values: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct


def write_duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1_000_000))
    return duration


def write_timestamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
