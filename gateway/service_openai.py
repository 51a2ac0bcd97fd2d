"""OpenAIService: OpenAI's JSON to questions, and answers to OpenAI's JSON."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from google.api import httpbody_pb2
from google.protobuf import empty_pb2

from gateway import openai_replies
from gateway.events import Failed, Started
from gateway.generation import Model
from gateway.knowledge import Catalog, Collection, Encoder
from gateway.models import Models
from gateway.openai_bodies import ChatRequest, EmbeddingsRequest, parse
from gateway.openai_replies import ChatStream
from gateway.relaying import Relay
from gateway.underway import AnswersUnderway
from meshkit.errors import MeshError
from meshkit.identity import current, require_scope
from ragmesh.gateway.v1 import openai_pb2, openai_pb2_grpc

# `{collection}/{model}` names both.
_OF_MODEL = {"COLLECTION_NOT_FOUND", "MODEL_NOT_FOUND"}
_PARAMS = {"structured_output": "response_format"}

Context = grpc.aio.ServicerContext[Any, Any]


class OpenAIService(openai_pb2_grpc.OpenAIServiceServicer):
    """The OpenAI-compatible surface; without sessions: its callers send the conversation each time."""

    def __init__(self, underway: AnswersUnderway, models: Models, catalog: Catalog, encoder: Encoder) -> None:
        self._underway = underway
        self._models = models
        self._catalog = catalog
        self._encoder = encoder

    async def ChatCompletions(
        self, request: httpbody_pb2.HttpBody, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        require_scope("ask")
        asked = parse(ChatRequest, request.data)
        created_s = int(time.time())
        with _params():
            if not asked.stream:
                answer = await self._underway.once(asked.question(), current())
                yield _json_body(openai_replies.completion(answer, asked.model, created_s))
                return
            stream = ChatStream(asked.model, created_s, include_usage=asked.includes_usage)
            async with self._underway.ask(asked.question(), current()) as relay:
                async for data in _frames(relay, stream):
                    yield httpbody_pb2.HttpBody(content_type="text/event-stream", data=data)

    async def ListModels(self, request: empty_pb2.Empty, context: Context) -> httpbody_pb2.HttpBody:
        require_scope("ask")
        return _json_body(openai_replies.model_list(*await self._served()))

    async def GetModel(self, request: openai_pb2.GetModelRequest, context: Context) -> httpbody_pb2.HttpBody:
        require_scope("ask")
        return _json_body(openai_replies.one_model(request.model, *await self._served()))

    async def Embeddings(self, request: httpbody_pb2.HttpBody, context: Context) -> httpbody_pb2.HttpBody:
        require_scope("ask")
        asked = parse(EmbeddingsRequest, request.data)
        embedded = await self._encoder.embed(asked.model, asked.input, asked.dimensions or 0)
        packed = asked.encoding_format == "base64"
        return _json_body(openai_replies.embeddings(embedded, asked.model, packed=packed))

    async def _served(self) -> tuple[Sequence[Collection], Sequence[Model]]:
        return await asyncio.gather(self._catalog.list_collections(), self._models.list())


@contextmanager
def _params() -> Iterator[None]:
    """Say of the errors raised in the body which of OpenAI's parameters they are about."""
    try:
        yield
    except MeshError as error:
        option = error.metadata.get("option", "")
        param = "model" if error.reason in _OF_MODEL else _PARAMS.get(option, option)
        if param:
            error.metadata["param"] = param
        raise


async def _frames(relay: Relay, stream: ChatStream) -> AsyncIterator[bytes]:
    async for numbered in relay:
        event = numbered.event
        if isinstance(event, Started):
            stream.start(event)
        elif isinstance(event, Failed) and stream.begun:
            yield stream.fail(event.error)
        for frame in stream.write(event):
            yield frame


def _json_body(data: bytes) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type="application/json", data=data)
