"""The retriever on a real channel over an embedded index, and callers of it."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict

from meshkit.channel import peer_errors
from meshkit.identity import Identity
from meshkit.server import App, Registration
from meshkit.settings import ChannelSettings
from meshkit.testing import connect, serve
from ragmesh.common.v1 import chunk_pb2
from ragmesh.embedder.v1 import embedder_pb2_grpc
from ragmesh.retriever.v1 import index_pb2, index_pb2_grpc, retriever_pb2, retriever_pb2_grpc
from retriever_svc.app import open_app
from retriever_svc.settings import Settings
from tests.retriever_svc.doubles import DIMENSION, ENCODER, SmallEmbedder, encode, pack
from tests.retriever_svc.indexes import uri_of

SCOPES = frozenset({"search", "ingest"})
ALICE = Identity("acme", "alice", SCOPES)
BOB = Identity("bolt", "bob", SCOPES)

# A port that nothing listens on.
NOWHERE = "127.0.0.1:1"


class Caller:
    """A caller of the retriever, over a channel that it does not own."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.retriever = retriever_pb2_grpc.RetrieverServiceStub(channel)
        self.index = index_pb2_grpc.IndexServiceStub(channel)

    async def put(self, collection: str = "kb", **spec: Any) -> index_pb2.IndexInfo:
        """Make a collection's index; enums by name."""
        values = {"collection": f"collections/{collection}", "encoder": ENCODER, "dimension": DIMENSION, **spec}
        request = index_pb2.PutIndexRequest(spec=ParseDict(values, index_pb2.IndexSpec()))
        with peer_errors():
            return (await self.index.PutIndex(request)).index

    async def write(
        self, document: str, texts: Sequence[str], collection: str = "kb", **fields: Any
    ) -> index_pb2.UpsertDocumentResponse:
        """Write a document of these chunks, one message each."""
        with peer_errors():
            return await self.index.UpsertDocument(iter(upsert(document, texts, collection, **fields)))

    async def search(self, query: str = "", collection: str = "kb", **fields: Any) -> retriever_pb2.SearchResponse:
        """Search; enums by name, a `vector` as a message."""
        with peer_errors():
            return await self.retriever.Search(search_request(query, collection, **fields))

    async def found(self, query: str = "", collection: str = "kb", **fields: Any) -> list[str]:
        """The texts that a search finds, best first."""
        return [hit.chunk.text for hit in (await self.search(query, collection, **fields)).hits]


def search_request(query: str = "", collection: str = "kb", **fields: Any) -> retriever_pb2.SearchRequest:
    """A search; enums by name, a `vector` as a message."""
    vector = fields.pop("vector", None)
    values = {"collection": f"collections/{collection}", "query": query, **fields}
    return ParseDict(values, retriever_pb2.SearchRequest(vector=vector))


def head(document: str, collection: str = "kb", content_hash: str = "h1") -> index_pb2.UpsertDocumentRequest:
    """The message that begins a document."""
    name = f"collections/{collection}/documents/{document}"
    return index_pb2.UpsertDocumentRequest(
        head=index_pb2.UpsertDocumentRequest.Head(document=name, content_hash=content_hash)
    )


def part(text: str, ordinal: int, **fields: Any) -> index_pb2.UpsertDocumentRequest:
    """The message with one chunk and its vector."""
    chunk = ParseDict({"text": text, "ordinal": ordinal, **fields}, chunk_pb2.Chunk())
    return index_pb2.UpsertDocumentRequest(
        part=index_pb2.UpsertDocumentRequest.Part(chunks=[chunk], vectors=pack([encode(text)]))
    )


def waiting(text: str, ordinal: int, **fields: Any) -> index_pb2.UpsertDocumentRequest:
    """The message with one chunk that waits for its vector."""
    message = part(text, ordinal, **fields)
    message.part.ClearField("vectors")
    return message


def upsert(
    document: str, texts: Sequence[str], collection: str = "kb", **fields: Any
) -> list[index_pb2.UpsertDocumentRequest]:
    """The messages of a document whose chunks have these texts."""
    return [head(document, collection), *(part(text, place, **fields) for place, text in enumerate(texts))]


@asynccontextmanager
async def serve_embedder(embedder: SmallEmbedder) -> AsyncIterator[str]:
    """The address of the embedder."""
    registration = Registration(
        "ragmesh.embedder.v1.EmbedderService",
        embedder_pb2_grpc.add_EmbedderServiceServicer_to_server,
        embedder,
    )
    async with serve(App([registration])) as address:
        yield address


@asynccontextmanager
async def serve_retriever(
    folder: Path, embedder: str = NOWHERE, engine: str = "lance", **settings: Any
) -> AsyncIterator[str]:
    """The address of a retriever whose index is in the folder."""
    own = Settings(
        **{
            "index_uri": uri_of(engine, folder),
            "embedder_target": embedder,
            "channel": ChannelSettings(retry_attempts=1),
            **settings,
        }
    )
    async with open_app(own) as app, serve(app) as address:
        yield address


@asynccontextmanager
async def calling(address: str, identity: Identity | None = ALICE) -> AsyncIterator[Caller]:
    """A caller who acts for the identity."""
    async with connect(address, identity) as channel:
        yield Caller(channel)


@asynccontextmanager
async def callers(
    folder: Path, embedder: SmallEmbedder | None = None, engine: str = "lance"
) -> AsyncIterator[tuple[Caller, Caller]]:
    """Alice of one tenant and Bob of another, both calling one retriever; without an embedder it is away."""
    async with AsyncExitStack() as stack:
        target = await stack.enter_async_context(serve_embedder(embedder)) if embedder else NOWHERE
        address = await stack.enter_async_context(serve_retriever(folder, target, engine))
        yield (
            await stack.enter_async_context(calling(address, ALICE)),
            await stack.enter_async_context(calling(address, BOB)),
        )


async def send(caller: Caller, messages: Iterable[index_pb2.UpsertDocumentRequest]) -> index_pb2.UpsertDocumentResponse:
    """Send the messages as one UpsertDocument."""
    with peer_errors():
        return await caller.index.UpsertDocument(iter(messages))


async def info(caller: Caller, collection: str = "kb") -> index_pb2.IndexInfo:
    """What GetIndex says."""
    request = index_pb2.GetIndexRequest(collection=f"collections/{collection}")
    with peer_errors():
        return (await caller.index.GetIndex(request)).index


async def delete(caller: Caller, **selection: str) -> index_pb2.DeleteChunksResponse:
    """Delete chunks of the collection `kb`."""
    with peer_errors():
        return await caller.index.DeleteChunks(index_pb2.DeleteChunksRequest(collection="collections/kb", **selection))


async def listed(caller: Caller, document: str, collection: str = "kb") -> list[str]:
    """The texts of a document's chunks."""
    parent = f"collections/{collection}/documents/{document}"
    with peer_errors():
        response = await caller.retriever.ListChunks(retriever_pb2.ListChunksRequest(parent=parent))
    return [chunk.text for chunk in response.chunks]
