"""A gateway between real peers and a real Redis."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from redis import Redis

from gateway.app import open_app
from gateway.settings import Settings
from meshkit.identity import Identity
from meshkit.testing import connect, serve
from ragmesh.gateway.v1 import (
    answers_pb2_grpc,
    feedback_pb2_grpc,
    mesh_pb2_grpc,
    openai_pb2_grpc,
    sessions_pb2_grpc,
)
from tests.gateway.peer_doubles import Peers, open_peers
from tests.redis_server import RedisServer, open_redis_server

ALICE = Identity("acme", "alice", frozenset({"ask"}))


@dataclass
class Gateway:
    """A running gateway and its peers; `connect` calls it as somebody else."""

    address: str
    peers: Peers
    channel: grpc.aio.Channel

    def __post_init__(self) -> None:
        self.answers = answers_pb2_grpc.AnswerServiceStub(self.channel)
        self.sessions = sessions_pb2_grpc.SessionServiceStub(self.channel)
        self.feedback = feedback_pb2_grpc.FeedbackServiceStub(self.channel)
        self.openai = openai_pb2_grpc.OpenAIServiceStub(self.channel)
        self.mesh = mesh_pb2_grpc.MeshServiceStub(self.channel)

    @asynccontextmanager
    async def acting(self, identity: Identity | None) -> AsyncIterator["Gateway"]:
        """The same gateway, called by somebody else."""
        async with connect(self.address, identity) as channel:
            yield Gateway(self.address, self.peers, channel)


@asynccontextmanager
async def open_gateway(redis_url: str, peers: Peers, **settings: Any) -> AsyncIterator[Gateway]:
    """A gateway that ALICE calls, over these peers; a busy machine still has its first events wait for the search."""
    port = free_port()
    targets = {f"{peer}_target": peers.address for peer in ("retriever", "generator", "embedder", "ingest")}
    given = {
        "listen": f"127.0.0.1:{port}",
        "metrics_listen": "",
        "drain_grace_s": 0.2,
        "redis_url": redis_url,
        "hold_s": 5.0,
    }
    made = Settings(**{**given, **targets, **settings})
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(open_app(made))
        address = await stack.enter_async_context(serve(app, made))
        channel = await stack.enter_async_context(connect(address, ALICE))
        yield Gateway(address, peers, channel)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One redis-server for all of the gateway's tests."""
    with open_redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty Redis."""
    with Redis(port=redis_server.port) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    """The gateway's peers."""
    async with open_peers() as peers:
        yield peers


@pytest.fixture
async def gateway(redis_url: str, peers: Peers) -> AsyncIterator[Gateway]:
    """A gateway that ALICE calls."""
    async with open_gateway(redis_url, peers) as gateway:
        yield gateway
