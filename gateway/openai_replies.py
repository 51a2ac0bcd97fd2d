"""Answers and vectors in the form of OpenAI's API."""

import base64
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gateway.answers import Abstention, Answer, Citation, FinishReason
from gateway.events import Event, Heartbeat, Started, Token
from gateway.generation import Model, Usage
from gateway.knowledge import Collection, Embedded
from gateway.openai_tools import describe_calls
from meshkit.errors import MeshError, not_found

DONE = b"data: [DONE]\n\n"
_SILENCE = b": heartbeat\n\n"

_FINISH_REASONS = {FinishReason.LENGTH: "length", FinishReason.TOOL_CALL: "tool_calls"}
_NOTHING: Mapping[str, Any] = {}
_REFUSAL = "Nothing in the collection supports an answer."
_REFUSALS = {
    Abstention.CONFLICTING_SOURCES: "The sources contradict each other.",
    Abstention.OUT_OF_TIME: "The time allowed did not suffice.",
}


class ChatStream:
    """The events of one answer as server-sent events; lives as long as the answer.

    Nothing comes before the first token, so that what fails until then can fail with a plain status.
    """

    def __init__(self, model: str, created_s: int, *, include_usage: bool) -> None:
        self.begun = False
        self._model = model
        self._created_s = created_s
        self._include_usage = include_usage
        self._id = self._fingerprint = ""

    def write(self, event: Event) -> Iterable[bytes]:
        """The event's frames, none for what OpenAI's stream has no place for."""
        match event:
            case Token(text):
                yield from self._begin()
                yield self._chunk({"content": text})
            case Answer():
                yield from self._begin()
                yield from self._end(event)
            case Heartbeat() if self.begun:
                yield _SILENCE

    def fail(self, error: MeshError) -> bytes:
        """The frame for an answer that fails once it has begun."""
        return _frame({"error": describe_error(error)})

    def start(self, started: Started) -> None:
        """Say which answer the frames belong to and which model writes it, before the first of them."""
        self._id, self._fingerprint = f"chatcmpl-{started.answer}", started.model

    def _begin(self) -> Iterable[bytes]:
        if not self.begun:
            self.begun = True
            yield self._chunk({"role": "assistant", "content": ""})

    def _end(self, answer: Answer) -> Iterable[bytes]:
        annotations = annotate(answer)
        delta = {"annotations": annotations} if annotations else {}
        if answer.tool_calls:
            delta["tool_calls"] = describe_calls(answer.tool_calls, in_stream=True)
        yield self._chunk({**delta, **_refusal(answer)}, finish_reason(answer), _beside(answer))
        if self._include_usage:
            yield _frame({**self._head(), "choices": [], "usage": describe_usage(answer.usage)})
        yield DONE

    def _chunk(
        self, delta: Mapping[str, Any], reason: str | None = None, beside: Mapping[str, Any] = _NOTHING
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _frame({**self._head(), "choices": [choice], **beside})

    def _head(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created_s,
            "model": self._model,
            "system_fingerprint": self._fingerprint,
            **({"usage": None} if self._include_usage else {}),
        }


def completion(answer: Answer, model: str, created_s: int) -> bytes:
    """The answer as one body; `model` as the caller named it."""
    message = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": annotate(answer)}
    if answer.tool_calls:
        message |= {"content": answer.text or None, "tool_calls": describe_calls(answer.tool_calls, in_stream=False)}
    choice = {
        "index": 0,
        "message": {**message, **_refusal(answer)},
        "logprobs": None,
        "finish_reason": finish_reason(answer),
    }
    return _json(
        {
            "id": f"chatcmpl-{answer.id}",
            "object": "chat.completion",
            "created": created_s,
            "model": model,
            "system_fingerprint": answer.model,
            "choices": [choice],
            "usage": describe_usage(answer.usage),
            **_beside(answer),
        }
    )


def finish_reason(answer: Answer) -> str:
    return _FINISH_REASONS.get(answer.finish_reason, "stop")


def annotate(answer: Answer) -> list[dict[str, Any]]:
    """The citations as `url_citation`s, which count characters; beside them our own spans count bytes."""
    return [_annotation(citation, answer.text.encode()) for citation in answer.citations]


def _annotation(citation: Citation, text: bytes) -> dict[str, Any]:
    claim = citation.answer
    start, end = (len(text[:place].decode()) for place in (claim.start, claim.end))
    return {
        "type": "url_citation",
        "url_citation": {
            "start_index": start,
            "end_index": end,
            "title": citation.title,
            "url": citation.uri,
        },
        "number": citation.number,
        "answer": {"start": claim.start, "end": claim.end},
        "chunk": citation.chunk,
        "document": citation.document,
        "page": citation.page,
        "heading_path": citation.heading_path,
        "source": {"start": citation.source.start, "end": citation.source.end},
        "quote": citation.quote,
        "verbatim": citation.verbatim,
    }


def _refusal(answer: Answer) -> dict[str, Any]:
    if answer.abstention is Abstention.NONE:
        return {}
    return {"refusal": _REFUSALS.get(answer.abstention, _REFUSAL), "abstention": answer.abstention.name}


def _beside(answer: Answer) -> dict[str, Any]:
    """What OpenAI's API has no place for: what was left out of the answer's course, and that it was given before."""
    left_out = [{"stage": each.stage, "reason": each.reason} for each in answer.degradations]
    return {**({"degradations": left_out} if left_out else {}), **({"cached": True} if answer.cached else {})}


def describe_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def describe_error(error: MeshError) -> dict[str, Any]:
    """The error in OpenAI's shape, its reason as `code`."""
    return {
        "message": error.message,
        "type": error.code.lower(),
        "param": error.metadata.get("param"),
        "code": error.reason,
    }


def model_list(collections: Sequence[Collection], models: Sequence[Model]) -> bytes:
    """Each collection by itself, for the default model, and with each model."""
    return _json({"object": "list", "data": list(_each_model(collections, models))})


def one_model(id: str, collections: Sequence[Collection], models: Sequence[Model]) -> bytes:
    """The one of that id in the list; raises NotFound MODEL_NOT_FOUND."""
    found = next((model for model in _each_model(collections, models) if model["id"] == id), None)
    if found is None:
        raise not_found("model", id, "MODEL_NOT_FOUND")
    return _json(found)


def _each_model(collections: Sequence[Collection], models: Sequence[Model]) -> Iterator[dict[str, Any]]:
    for made in collections:
        created_s, collection = int(made.create_time.timestamp()), made.name.removeprefix("collections/")
        for id in (collection, *(f"{collection}/{model.name}" for model in models)):
            yield {"id": id, "object": "model", "created": created_s, "owned_by": "ragmesh"}


def embeddings(embedded: Embedded, model: str, *, packed: bool) -> bytes:
    """The vectors as numbers or, `packed`, as base64 of their bytes."""
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(row) if packed else _numbers(row)}
        for index, row in enumerate(embedded.rows)
    ]
    usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    return _json({"object": "list", "data": data, "model": model, "usage": usage})


def _base64(row: bytes) -> str:
    return base64.b64encode(row).decode()


def _numbers(row: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(row) // 4}f", row)


def _frame(value: Mapping[str, Any]) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
