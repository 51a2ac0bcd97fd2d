"""The service that meshkit's tests serve: one method of each kind, and ways to call each kind alike."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from meshkit.identity import Identity
from meshkit.server import App, Registration

NAME = "meshkit.test.v1.ProbeService"
METHODS = {"unary": "Say", "server_stream": "Count", "client_stream": "Collect", "bidi_stream": "Chat"}
KINDS = tuple(METHODS)
ALICE = Identity("acme", "alice", frozenset({"ask", "ingest"}))


class Echo:
    """Answers each request with its own text and number; Count does so `number` times."""

    def __init__(self, wire: Any) -> None:
        self.wire = wire
        self.calls = 0

    async def seen(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Answer one request; tests that want another behaviour replace this."""
        self.calls += 1
        return self.wire.ProbeResponse(text=request.text, number=request.number)

    async def Say(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Answer once."""
        return await self.seen(request, context)

    async def Count(self, request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        """Answer `number` times, at least once."""
        for _ in range(max(request.number, 1)):
            yield await self.seen(request, context)

    async def Collect(self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> Any:
        """Answer the last request."""
        response = self.wire.ProbeResponse()
        async for request in requests:
            response = await self.seen(request, context)
        return response

    async def Chat(self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        """Answer each request."""
        async for request in requests:
            yield await self.seen(request, context)


def app_of(wire: Any, servicer: object, **more: Any) -> App:
    """An app that serves the servicer as ProbeService."""
    return App([Registration(NAME, wire.add_ProbeServiceServicer_to_server, servicer)], **more)


async def invoke(
    channel: grpc.aio.Channel, wire: Any, kind: str, request: Any, *, service: str = NAME, **options: Any
) -> list[Any]:
    """Make a call of the kind with one request, raw bytes or a message, and return its responses."""

    def serialized(request: Any) -> bytes:
        return request if isinstance(request, bytes) else request.SerializeToString()

    async def requests() -> AsyncIterator[Any]:
        yield request

    streams_in, streams_out = (
        kind in ("client_stream", "bidi_stream"),
        kind in ("server_stream", "bidi_stream"),
    )
    make = getattr(channel, f"{'stream' if streams_in else 'unary'}_{'stream' if streams_out else 'unary'}")
    method = make(f"/{service}/{METHODS[kind]}", serialized, wire.ProbeResponse.FromString)
    call = method(requests() if streams_in else request, **options)
    return [response async for response in call] if streams_out else [await call]
