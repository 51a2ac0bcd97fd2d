"""The embedder's app over models of the test's choosing, on a real channel."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict

from embedder_svc.app import make_app
from embedder_svc.batching import BatchLimits, open_device
from embedder_svc.embedding import Embedder, open_embedder
from embedder_svc.embedding_cache import EmbeddingCache, Memory
from embedder_svc.encoding import Encoder, Reranker
from embedder_svc.ranking import open_ranker
from embedder_svc.settings import Settings
from meshkit.identity import Identity
from meshkit.testing import connect, serve
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from tests.embedder_svc.doubles import LIMITS

ALICE = Identity("acme", "alice")


@asynccontextmanager
async def connected(
    encoder: Encoder,
    reranker: Reranker | None = None,
    limits: BatchLimits = LIMITS,
    cache: EmbeddingCache | None = None,
    identity: Identity = ALICE,
) -> AsyncIterator[tuple[grpc.aio.Channel, Embedder]]:
    """A channel whose calls act for `identity`, and the embedder behind it."""
    async with AsyncExitStack() as stack:
        device = stack.enter_context(open_device("test"))
        memory = Memory(cache, encoder.card, "") if cache else None
        embedder = await stack.enter_async_context(open_embedder(encoder, limits, device, 1, memory))
        rankers = {}
        if reranker:
            ranker = await stack.enter_async_context(open_ranker(reranker, limits, device, 1))
            rankers[reranker.card.name] = ranker
        app = make_app({encoder.card.name: embedder}, rankers, Settings(stream_depth=2))
        address = await stack.enter_async_context(serve(app))
        yield await stack.enter_async_context(connect(address, identity)), embedder


@asynccontextmanager
async def served(
    encoder: Encoder,
    reranker: Reranker | None = None,
    limits: BatchLimits = LIMITS,
    cache: EmbeddingCache | None = None,
    identity: Identity = ALICE,
) -> AsyncIterator[tuple[embedder_pb2_grpc.EmbedderServiceStub, Embedder]]:
    """A stub whose calls act for `identity`, and the embedder behind it."""
    async with connected(encoder, reranker, limits, cache, identity) as (channel, embedder):
        yield embedder_pb2_grpc.EmbedderServiceStub(channel), embedder


def embed(texts: list[str], **fields: Any) -> embedder_pb2.EmbedRequest:
    """An EmbedRequest; enums by name."""
    return ParseDict({"texts": texts, **fields}, embedder_pb2.EmbedRequest())


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds, for five seconds at most."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)
