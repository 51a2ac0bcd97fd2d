"""The embedder's app over models of the test's choosing, on a real channel."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict

from embedder_svc.app import make_app
from embedder_svc.batching import BatchLimits
from embedder_svc.embedding import Embedder, open_embedder
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
    encoder: Encoder, reranker: Reranker | None = None, limits: BatchLimits = LIMITS
) -> AsyncIterator[tuple[grpc.aio.Channel, Embedder]]:
    """A channel whose calls act for ALICE, and the embedder behind it."""
    async with AsyncExitStack() as stack:
        embedder = await stack.enter_async_context(open_embedder(encoder, limits, tokenize_threads=1))
        ranker = await stack.enter_async_context(open_ranker(reranker, limits, 1)) if reranker else None
        address = await stack.enter_async_context(serve(make_app(embedder, ranker, Settings(stream_depth=2))))
        yield await stack.enter_async_context(connect(address, ALICE)), embedder


@asynccontextmanager
async def served(
    encoder: Encoder, reranker: Reranker | None = None, limits: BatchLimits = LIMITS
) -> AsyncIterator[tuple[embedder_pb2_grpc.EmbedderServiceStub, Embedder]]:
    """A stub whose calls act for ALICE, and the embedder behind it."""
    async with connected(encoder, reranker, limits) as (channel, embedder):
        yield embedder_pb2_grpc.EmbedderServiceStub(channel), embedder


def embed(texts: list[str], **fields: Any) -> embedder_pb2.EmbedRequest:
    """An EmbedRequest; enums by name."""
    return ParseDict({"texts": texts, **fields}, embedder_pb2.EmbedRequest())
