"""Ingestion over a real channel, with a real Redis, and its peers in memory."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis

from ingest_svc.app import open_app
from ingest_svc.settings import Settings
from meshkit.identity import Identity
from meshkit.testing import connect, serve
from ragmesh.ingest.v1 import (
    chunking_pb2_grpc,
    collections_pb2,
    collections_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
    jobs_pb2_grpc,
)
from tests.ingest_svc.object_stores import CREDENTIALS, S3, open_s3
from tests.ingest_svc.peers import Peers, open_peers
from tests.redis_server import RedisServer, open_redis_server

ALICE = Identity("acme", "alice", frozenset({"ingest"}))
BOB = Identity("other", "bob", frozenset({"ingest"}))
READER = Identity("acme", "carol", frozenset({"ask"}))
HANDBOOK = "collections/handbook"


class Client:
    """The stubs of ingestion for one caller."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.collections = collections_pb2_grpc.CollectionServiceStub(channel)
        self.documents = documents_pb2_grpc.DocumentServiceStub(channel)
        self.jobs = jobs_pb2_grpc.JobServiceStub(channel)
        self.chunking = chunking_pb2_grpc.ChunkingServiceStub(channel)

    async def create_collection(self, id: str = "handbook", **settings: Any) -> Any:
        """Make a collection and return it."""
        request = collections_pb2.CreateCollectionRequest(
            collection_id=id, collection=collections_pb2.Collection(**settings)
        )
        return (await self.collections.CreateCollection(request)).collection

    async def create(self, text: str | bytes, wait: bool = True, into: str = HANDBOOK, **head: Any) -> Any:
        """Take a small document in and return it."""
        content: dict[str, Any] = {"text": text} if isinstance(text, str) else {"data": text}
        request = documents_pb2.CreateDocumentRequest(
            parent=into, document=documents_pb2.DocumentHead(**head), wait=wait, **content
        )
        return (await self.documents.CreateDocument(request)).document

    async def get(self, name: str) -> Any:
        """A document by its name."""
        return (await self.documents.GetDocument(documents_pb2.GetDocumentRequest(name=name))).document


@dataclass
class World:
    """A running ingestion and all that it stands on."""

    address: str
    settings: Settings
    peers: Peers
    redis: RedisServer
    alice: Client
    others: dict[str, Client] = field(default_factory=dict)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for the tests that leave it running; each test has a database of its own by flushing it."""
    with open_redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def empty_redis(redis_server: RedisServer) -> RedisServer:
    """The Redis, with nothing in it."""
    with redis.Redis(port=redis_server.port) as client:
        client.flushall()
    return redis_server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """One S3 for all tests; one that stops it starts it again."""
    with open_s3() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The S3, with an empty bucket, and the credentials for it in the environment."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    s3_server.empty()
    return s3_server


def settings_of(folder: Path, redis: RedisServer, peers: Peers, **more: Any) -> Settings:
    """Settings for tests: small waits, one parser."""
    values: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "metrics_listen": "",
        "drain_grace_s": 0.2,
        "embedder_target": peers.embedder_target,
        "retriever_target": peers.retriever_target,
        "redis_url": redis.url,
        "object_store_url": (folder / "objects").as_uri(),
        "source_roots": str(folder / "source"),
        "watch_poll_s": 0.3,
        "job_poll_s": 0.1,
        "claim_idle_s": 1.0,
        "heartbeat_s": 0.2,
        "queue_block_s": 0.2,
        "retry_backoff_s": 0.05,
        "retry_backoff_max_s": 0.2,
        "lock_wait_s": 3.0,
        "parser_processes": 1,
        "parser_timeout_s": 10.0,
        "max_document_bytes": 4_000_000,
        "max_batch_chunks": 2,
    }
    return Settings(**values | more)


@asynccontextmanager
async def open_world(folder: Path, redis: RedisServer, **more: Any) -> AsyncIterator[World]:
    """Ingestion, its peers and three callers."""
    (folder / "source").mkdir(exist_ok=True)
    async with AsyncExitStack() as stack:
        peers = await stack.enter_async_context(open_peers())
        settings = settings_of(folder, redis, peers, **more)
        app = await stack.enter_async_context(open_app(settings))
        address = await stack.enter_async_context(serve(app, settings))
        alice, bob, reader = [
            Client(await stack.enter_async_context(connect(address, caller))) for caller in (ALICE, BOB, READER)
        ]
        yield World(address, settings, peers, redis, alice, {"bob": bob, "reader": reader})


@pytest.fixture
async def world(tmp_path: Path, empty_redis: RedisServer) -> AsyncIterator[World]:
    """Ingestion over a real channel."""
    async with open_world(tmp_path, empty_redis) as opened:
        yield opened
