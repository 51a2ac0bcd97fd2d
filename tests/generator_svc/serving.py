"""The generator's app over an engine of the test's choosing, on a real channel, and what its callers ask."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict

from generator_svc.app import make_app
from generator_svc.engine import Engine
from generator_svc.settings import Settings
from meshkit.channel import peer_errors
from meshkit.identity import Identity
from meshkit.testing import connect, serve
from ragmesh.generator.v1 import generator_pb2, generator_pb2_grpc

ALICE = Identity("acme", "alice")
MALLORY = Identity("rivals", "mallory")


@asynccontextmanager
async def served(engine: Engine, **settings: Any) -> AsyncIterator[str]:
    """The address of a server of the engine."""
    own = Settings(listen="127.0.0.1:0", metrics_listen="", drain_grace_s=0.2, **settings)
    async with serve(make_app(engine, own), own) as address:
        yield address


@asynccontextmanager
async def calling(address: str, caller: Identity = ALICE) -> AsyncIterator[generator_pb2_grpc.GeneratorServiceStub]:
    """A stub whose calls act for the caller."""
    async with connect(address, caller) as channel:
        yield generator_pb2_grpc.GeneratorServiceStub(channel)


@asynccontextmanager
async def called(engine: Engine, **settings: Any) -> AsyncIterator[generator_pb2_grpc.GeneratorServiceStub]:
    """A stub for a server of the engine, whose calls act for ALICE."""
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(served(engine, **settings))
        yield await stack.enter_async_context(calling(address))


def request(**fields: Any) -> generator_pb2.GenerateRequest:
    """A GenerateRequest, its messages as dictionaries and its enums by name."""
    return ParseDict(fields, generator_pb2.GenerateRequest())


async def read(call: grpc.aio.UnaryStreamCall) -> list[generator_pb2.GenerateResponse]:
    """All messages of a stream; its failure is raised as the error that was sent."""
    with peer_errors():
        return [message async for message in call]


def text(messages: Iterable[generator_pb2.GenerateResponse], index: int = 0) -> str:
    """The text of one of the sequences."""
    return "".join(message.text for message in messages if message.index == index)
