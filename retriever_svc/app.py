"""The wiring of the retriever."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from meshkit.channel import MeshChannel, make_channel, open_channel
from meshkit.replicas import Following, is_several, open_replicas
from meshkit.server import App, Registration
from ragmesh.retriever.v1 import index_pb2, index_pb2_grpc, retriever_pb2, retriever_pb2_grpc
from retriever_svc.hedging import Hedging, Policy
from retriever_svc.indexing import Indexing
from retriever_svc.metrics import HedgingCollector
from retriever_svc.opening import open_index
from retriever_svc.peers import EmbedderPeer, Replica
from retriever_svc.reading import Readers
from retriever_svc.searching import Limits, Searching
from retriever_svc.service import DocumentLimits, IndexService, RetrieverService
from retriever_svc.settings import Settings
from retriever_svc.turns import open_turns

RETRIEVER = retriever_pb2.DESCRIPTOR.services_by_name["RetrieverService"].full_name
INDEX = index_pb2.DESCRIPTOR.services_by_name["IndexService"].full_name


@asynccontextmanager
async def open_app(settings: Settings) -> AsyncIterator[App]:
    """The retriever with its index open; the embedder need not answer yet.

    Raises Unavailable where a Milvus server does not answer, OSError where the index's folder cannot be had.
    """
    async with AsyncExitStack() as stack:
        index = await stack.enter_async_context(open_index(settings.milvus_uri or settings.index_uri, settings))
        turns = await stack.enter_async_context(open_turns())
        hedging = Hedging(Policy(**settings.hedging.model_dump()))
        embedder = await stack.enter_async_context(_open_embedder(settings, hedging))
        readers = Readers()
        searching = Searching(index, embedder, _limits(settings), readers)
        limits = DocumentLimits(settings.max_document_chunks, settings.max_document_bytes)
        retriever = RetrieverService(searching)
        indexer = IndexService(Indexing(index, turns, readers), limits)
        yield App(
            [
                Registration(RETRIEVER, retriever_pb2_grpc.add_RetrieverServiceServicer_to_server, retriever),
                Registration(INDEX, index_pb2_grpc.add_IndexServiceServicer_to_server, indexer),
            ],
            probes={RETRIEVER: index.check, INDEX: index.check},
            collectors=[HedgingCollector(hedging)],
        )


@asynccontextmanager
async def _open_embedder(settings: Settings, hedging: Hedging) -> AsyncIterator[EmbedderPeer]:
    """The embedder at one address, or over its replicas where the target may be several."""
    target, cooldown_s = settings.embedder_target, settings.embedder_cooldown_s
    peer = partial(
        EmbedderPeer,
        hedging=hedging,
        embed_timeout_s=settings.embed_timeout_s,
        rerank_timeout_s=settings.rerank_timeout_s,
    )
    if not is_several(target):
        async with open_channel(target, settings.channel) as channel:
            replica = Replica(channel, cooldown_s)
            yield peer(lambda: [replica])
        return
    # Whoever refuses is not tried again: the next one is.
    once = settings.channel.model_copy(update={"retry_attempts": 1})
    following = Following(settings.resolve_s, settings.resolve_timeout_s, drain_s=settings.rerank_timeout_s)

    def make_replica(_address: str, channel: MeshChannel) -> Replica:
        return Replica(channel, cooldown_s)

    async with open_replicas(target, partial(make_channel, settings=once), make_replica, following) as replicas:
        yield peer(lambda: replicas.present)


def _limits(settings: Settings) -> Limits:
    return Limits(settings.candidates, settings.rerank_candidates, settings.patience, settings.batch_concurrency)
