"""The wiring of the retriever."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from meshkit.channel import open_channel
from meshkit.server import App, Registration
from ragmesh.retriever.v1 import index_pb2, index_pb2_grpc, retriever_pb2, retriever_pb2_grpc
from retriever_svc.indexing import Indexing
from retriever_svc.milvus_index import MilvusOptions, open_milvus_index
from retriever_svc.peers import EmbedderPeer
from retriever_svc.searching import Limits, Searching
from retriever_svc.service import DocumentLimits, IndexService, RetrieverService
from retriever_svc.settings import Settings
from retriever_svc.turns import open_turns

RETRIEVER = retriever_pb2.DESCRIPTOR.services_by_name["RetrieverService"].full_name
INDEX = index_pb2.DESCRIPTOR.services_by_name["IndexService"].full_name


@asynccontextmanager
async def open_app(settings: Settings) -> AsyncIterator[App]:
    """The retriever with its index open; the embedder need not answer yet.

    Raises Unavailable where Milvus does not answer, OSError where the folder of Milvus Lite cannot be had.
    """
    async with AsyncExitStack() as stack:
        index = await stack.enter_async_context(open_milvus_index(_milvus(settings)))
        turns = await stack.enter_async_context(open_turns())
        channel = await stack.enter_async_context(open_channel(settings.embedder_target, settings.channel))
        embedder = EmbedderPeer(channel, settings.embed_timeout_s, settings.rerank_timeout_s)
        searching = Searching(index, embedder, Limits(settings.candidates, settings.rerank_candidates))
        limits = DocumentLimits(settings.max_document_chunks, settings.max_document_bytes)
        retriever = RetrieverService(searching, settings.batch_concurrency)
        # The stub's own SwitchIndex answers NOT_IMPLEMENTED.
        indexer = IndexService(Indexing(index, turns), limits)  # type: ignore[abstract]
        yield App(
            [
                Registration(RETRIEVER, retriever_pb2_grpc.add_RetrieverServiceServicer_to_server, retriever),
                Registration(INDEX, index_pb2_grpc.add_IndexServiceServicer_to_server, indexer),
            ],
            probes={RETRIEVER: index.check, INDEX: index.check},
        )


def _milvus(settings: Settings) -> MilvusOptions:
    return MilvusOptions(
        uri=settings.milvus_uri,
        token=settings.milvus_token.get_secret_value(),
        consistency=settings.milvus_consistency,
        read_timeout_s=settings.index_timeout_s,
        write_timeout_s=settings.write_timeout_s,
        flush_interval_s=settings.flush_interval_s,
        max_write_bytes=settings.max_write_bytes,
    )
