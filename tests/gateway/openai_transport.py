"""The OpenAI surface as HTTP, in the form that the edge gives it, for the openai client."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
from google.api import httpbody_pb2

from tests.gateway.conftest import Gateway


class _Body(httpx2.AsyncByteStream):
    def __init__(self, call: Any) -> None:
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for body in self._call:
            yield body.data


class _Transport(httpx2.AsyncBaseTransport):
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        call = self._gateway.openai.ChatCompletions(httpbody_pb2.HttpBody(data=await request.aread()))
        streams = b'"stream":true' in request.content
        kind = "text/event-stream" if streams else "application/json"
        return httpx2.Response(200, headers={"content-type": kind}, stream=_Body(call))


def openai_client(gateway: Gateway) -> openai.AsyncOpenAI:
    """The client of the openai package; close it."""
    http = httpx2.AsyncClient(transport=_Transport(gateway))
    return openai.AsyncOpenAI(base_url="http://gateway/v1", api_key="k", max_retries=0, http_client=http)
