"""A gRPC-web client in fifty lines: frames over HTTP/1.1, as a browser sends them."""

import base64
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from urllib.parse import unquote

import httpx
from google.protobuf.message import Message
from google.rpc import status_pb2

_TRAILERS = 0x80


@dataclass
class Reply:
    """What a call answered: messages as bytes, then the status from headers or trailers."""

    http_status: int
    headers: httpx.Headers
    messages: list[bytes] = field(default_factory=list)
    trailers: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """GRPC's code."""
        return int(self.trailers.get("grpc-status", self.headers.get("grpc-status", "-1")))

    @property
    def message(self) -> str:
        """GRPC's message."""
        return unquote(self.trailers.get("grpc-message", self.headers.get("grpc-message", "")))

    @property
    def details(self) -> status_pb2.Status:
        """The status with its details."""
        encoded = self.trailers.get("grpc-status-details-bin", self.headers.get("grpc-status-details-bin", ""))
        return status_pb2.Status.FromString(base64.b64decode(encoded + "=" * (-len(encoded) % 4)))


async def call(client: httpx.AsyncClient, path: str, request: Message, headers: dict[str, str]) -> Reply:
    """Call the method at `path` and read the answer to its end."""
    async with _sent(client, path, request, headers) as response:
        reply = Reply(response.status_code, response.headers)
        async for flag, body in _frames(response):
            if flag & _TRAILERS:
                lines = [line.partition(":") for line in body.decode().split("\r\n") if line]
                reply.trailers.update({name.strip().lower(): value.strip() for name, _, value in lines})
            else:
                reply.messages.append(body)
    return reply


async def messages(
    client: httpx.AsyncClient, path: str, request: Message, headers: dict[str, str]
) -> AsyncGenerator[bytes, None]:
    """The messages of a streaming call, each as it arrives."""
    async with _sent(client, path, request, headers) as response:
        async for flag, body in _frames(response):
            if not flag & _TRAILERS:
                yield body


def _sent(
    client: httpx.AsyncClient, path: str, request: Message, headers: dict[str, str]
) -> AbstractAsyncContextManager[httpx.Response]:
    payload = request.SerializeToString()
    content = struct.pack(">BI", 0, len(payload)) + payload
    kind = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    return client.stream("POST", path, content=content, headers=kind | headers)


async def _frames(response: httpx.Response) -> AsyncIterator[tuple[int, bytes]]:
    buffer = b""
    async for data in response.aiter_raw():
        buffer += data
        while len(buffer) >= 5:
            flag, length = struct.unpack(">BI", buffer[:5])
            if len(buffer) < 5 + length:
                break
            yield flag, buffer[5 : 5 + length]
            buffer = buffer[5 + length :]
