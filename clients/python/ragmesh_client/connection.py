"""The connection to a mesh: its channel, its token, and how a call is made."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from ragmesh_client.errors import translated
from ragmesh_client.settings import find_access

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

# Reading is repeated once or twice where the mesh is not there; gRPC does so only before the first byte.
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    {"service": "ragmesh.retriever.v1.RetrieverService"},
                    {"service": "ragmesh.gateway.v1.MeshService"},
                    {"service": "ragmesh.ingest.v1.CollectionService", "method": "GetCollection"},
                    {"service": "ragmesh.ingest.v1.CollectionService", "method": "ListCollections"},
                    {"service": "ragmesh.ingest.v1.DocumentService", "method": "GetDocument"},
                    {"service": "ragmesh.ingest.v1.DocumentService", "method": "ListDocuments"},
                ],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)


class Connection:
    """A channel and the token that goes with each call; open within `async with`."""

    def __init__(
        self,
        target: str | None = None,
        token: str | None = None,
        *,
        tls: bool = False,
        timeout_s: float = 60.0,
    ) -> None:
        """Without `target` or `token` it asks RAGMESH_TARGET and RAGMESH_TOKEN, then the local mesh.

        `timeout_s` bounds each call; uploads and answers take their own.
        """
        access = find_access(target, token)
        self.target = access.target
        self.metadata = (("authorization", f"Bearer {access.token}"),) if access.token else ()
        self.token = access.token
        self.tls = tls
        self.timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        options: list[tuple[str, Any]] = [
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ]
        if self.tls:
            self.channel = grpc.aio.secure_channel(self.target, grpc.ssl_channel_credentials(), options)
        else:
            self.channel = grpc.aio.insecure_channel(self.target, options)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.channel.close(None)

    async def call(self, method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request) -> _Response:
        """The answer of a unary call; raises RagmeshError."""
        with translated():
            return await method(request, timeout=self.timeout_s, metadata=self.metadata)


async def drained(
    call: grpc.aio.UnaryStreamCall[Any, _Response] | grpc.aio.StreamStreamCall[Any, _Response],
) -> AsyncGenerator[_Response, None]:
    """The messages of a streaming call, which is cancelled when the reader leaves."""
    try:
        with translated():
            async for response in call:
                yield response
    finally:
        call.cancel()


def full_name(kind: str, given: str) -> str:
    """The full name for a name or its last part: `collections/handbook` for `handbook`."""
    return given if given.startswith(f"{kind}/") else f"{kind}/{given}"
