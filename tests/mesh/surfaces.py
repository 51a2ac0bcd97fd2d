"""One question by every surface of the edge, each read back into the same form."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx
from google.protobuf.json_format import ParseDict
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from ragmesh.common.v1 import chunk_pb2
from ragmesh.gateway.v1 import answers_pb2, events_pb2
from ragmesh_client import Client
from tests.edge import grpc_web

METHOD = "/ragmesh.gateway.v1.AnswerService/Ask"


@dataclass
class Heard:
    """What a caller heard: the text, when each piece of it came (seconds), and the citations."""

    text: str = ""
    arrivals_s: list[float] = field(default_factory=list)
    citations: list[tuple[int, str, int, int, int, int]] = field(default_factory=list)
    ended: bool = False

    def say(self, text: str) -> None:
        """A piece of the text has come."""
        self.text += text
        self.arrivals_s.append(time.perf_counter())

    def cite(self, citation: Any) -> None:
        """A citation has come."""
        answer, source = citation.answer, citation.source
        place = (answer.start, answer.end, source.start, source.end)
        self.citations.append((citation.number, citation.chunk, *place))

    def hear(self, event: events_pb2.AnswerEvent) -> None:
        """An event has come."""
        match event.WhichOneof("event"):
            case "token":
                self.say(event.token.text)
            case "citation":
                self.cite(event.citation)
            case "final":
                self.ended = True


Ask = Callable[[str, str, str, str], Awaitable[Heard]]
"""Asks `(edge, token, collection, question)` and returns what was heard."""


async def grpc(edge: str, token: str, collection: str, question: str) -> Heard:
    """Native gRPC, by the Python client."""
    heard = Heard()
    async with Client(edge, token) as client:
        async for event in client.ask(question, collection):
            heard.hear(event.proto)
    return heard


async def web(edge: str, token: str, collection: str, question: str) -> Heard:
    """gRPC-web, as a browser sends it."""
    heard = Heard()
    headers = {"authorization": f"Bearer {token}"}
    request = answers_pb2.AskRequest(question=question, collection=f"collections/{collection}")
    async with (
        httpx.AsyncClient(base_url=f"http://{edge}", timeout=30) as client,
        aclosing(grpc_web.messages(client, METHOD, request, headers)) as messages,
    ):
        async for message in messages:
            heard.hear(answers_pb2.AskResponse.FromString(message).event)
    return heard


async def sse(edge: str, token: str, collection: str, question: str) -> Heard:
    """REST with server-sent events."""
    heard = Heard()
    async with aclosing(_lines(edge, token, "/v1/answers:sse", collection, question)) as lines:
        async for line in lines:
            if line.startswith("data:"):
                heard.hear(_event(line.removeprefix("data:")))
    return heard


async def ndjson(edge: str, token: str, collection: str, question: str) -> Heard:
    """REST with a JSON object a line."""
    heard = Heard()
    async with aclosing(_lines(edge, token, "/v1/answers:stream", collection, question)) as lines:
        async for line in lines:
            if line.strip():
                heard.hear(_event(line))
    return heard


async def once(edge: str, token: str, collection: str, question: str) -> Heard:
    """REST, the whole answer in one body."""
    body = {"question": question, "collection": f"collections/{collection}"}
    async with httpx.AsyncClient(base_url=f"http://{edge}", timeout=30) as client:
        reply = await client.post("/v1/answers", json=body, headers={"authorization": f"Bearer {token}"})
    reply.raise_for_status()
    answer = ParseDict(reply.json()["answer"], events_pb2.Answer())
    heard = Heard(answer.text, ended=True)
    for citation in answer.citations:
        heard.cite(citation)
    return heard


async def openai_stream(edge: str, token: str, collection: str, question: str) -> Heard:
    """The openai client, streaming."""
    heard = Heard()
    async with AsyncOpenAI(base_url=f"http://{edge}/v1", api_key=token, max_retries=0) as client:
        stream = await client.chat.completions.create(model=collection, messages=_chat(question), stream=True)
        async for part in stream:
            delta = part.choices[0].delta
            if delta.content:
                heard.say(delta.content)
            heard.ended = heard.ended or part.choices[0].finish_reason == "stop"
            _annotated(heard, delta)
    return heard


async def openai_whole(edge: str, token: str, collection: str, question: str) -> Heard:
    """The openai client, in one body."""
    async with AsyncOpenAI(base_url=f"http://{edge}/v1", api_key=token, max_retries=0) as client:
        reply = await client.chat.completions.create(model=collection, messages=_chat(question))
    choice = reply.choices[0]
    heard = Heard(choice.message.content or "", ended=choice.finish_reason == "stop")
    _annotated(heard, choice.message)
    return heard


ALL: dict[str, Ask] = {
    "gRPC": grpc,
    "gRPC-web": web,
    "REST SSE": sse,
    "REST NDJSON": ndjson,
    "REST once": once,
    "openai streaming": openai_stream,
    "openai whole": openai_whole,
}


def _chat(question: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": question}]


def _annotated(heard: Heard, message: Any) -> None:
    for annotation in message.to_dict().get("annotations") or ():
        heard.cite(ParseDict(annotation, chunk_pb2.Citation(), ignore_unknown_fields=True))


def _event(line: str) -> events_pb2.AnswerEvent:
    return ParseDict(json.loads(line), answers_pb2.AskResponse()).event


async def _lines(edge: str, token: str, path: str, collection: str, question: str) -> AsyncGenerator[str, None]:
    body = {"question": question, "collection": f"collections/{collection}"}
    headers = {"authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(base_url=f"http://{edge}", timeout=30) as client,
        client.stream("POST", path, json=body, headers=headers) as reply,
    ):
        reply.raise_for_status()
        async for line in reply.aiter_lines():
            yield line
