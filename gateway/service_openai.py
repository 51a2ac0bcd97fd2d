"""OpenAIService: OpenAI's JSON to questions, and answers to OpenAI's JSON."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from google.api import httpbody_pb2
from google.protobuf import empty_pb2

from gateway import openai_replies
from gateway.answering import Answering
from gateway.course import unheard
from gateway.events import Failed, Started
from gateway.generation import Model
from gateway.knowledge import Catalog, Collection, Encoder
from gateway.openai_bodies import ChatRequest, EmbeddingsRequest, parse
from gateway.openai_replies import ChatStream
from gateway.relaying import Pace, Relay, Underway
from meshkit.identity import current, require_scope
from ragmesh.gateway.v1 import openai_pb2, openai_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class OpenAIService(openai_pb2_grpc.OpenAIServiceServicer):
    """The OpenAI-compatible surface; without sessions: its callers send the conversation each time."""

    def __init__(self, answering: Answering, catalog: Catalog, encoder: Encoder, pace: Pace) -> None:
        self._answering = answering
        self._catalog = catalog
        self._encoder = encoder
        self._pace = pace

    async def ChatCompletions(
        self, request: httpbody_pb2.HttpBody, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        require_scope("ask")
        asked = parse(ChatRequest, request.data)
        course = self._answering.begin(asked.question(), current())
        created_s = int(time.time())
        if not asked.stream:
            yield _json_body(openai_replies.completion(await course.run(unheard), asked.model, created_s))
            return
        stream = ChatStream(asked.model, created_s, include_usage=asked.includes_usage)
        async with Relay(Underway(course, self._pace)) as relay:
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
        return await asyncio.gather(self._catalog.list_collections(), self._answering.ports.models.list())


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
