"""The mesh as its callers see it, through the edge and with their token: where documents made elsewhere go."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from ingest_svc.catalog import Document, Timing, now
from ingest_svc.index import Part
from ingest_svc.intake import Head
from ingest_svc.objects import ObjectStore
from ingest_svc.peers import send, write_part
from ingest_svc.wire_documents import write_document
from meshkit.channel import MeshChannel, peer_errors, streaming
from meshkit.errors import NotFound
from meshkit.settings import ChannelSettings
from ragmesh.ingest.v1 import (
    chunking_pb2,
    collections_pb2,
    collections_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
)

# A strategy's name and parameters, as asked for.
Asked = tuple[str, Mapping[str, Any]]

_MESH = "mesh"
_PART_BYTES = 1024 * 1024
_PAGE = 1000
_IMPORT_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class EdgeAccess:
    """Where the mesh is, host:port, and the caller's token, "" for none."""

    target: str
    token: str = field(default="", repr=False)
    tls: bool = False


class EdgePeer:
    """The mesh over a channel to its edge; see `open_edge`."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._collections = collections_pb2_grpc.CollectionServiceStub(channel)
        self._documents = documents_pb2_grpc.DocumentServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def collection(self, id: str) -> collections_pb2.Collection:
        """A collection; raises COLLECTION_NOT_FOUND."""
        request = collections_pb2.GetCollectionRequest(name=f"collections/{id}")
        answer: collections_pb2.GetCollectionResponse = await self._call(self._collections.GetCollection, request)
        return answer.collection

    async def indexed(
        self, head: Head, source: str, version: str, content_hash: str = ""
    ) -> documents_pb2.Document | None:
        """The document, where it is indexed already; by its version at its source where the hash is not given.

        Raises what CheckDocument fails with, TOO_LARGE and INVALID_FIELD among it.
        """
        request = documents_pb2.CheckDocumentRequest(
            document=_head(head), content_hash=content_hash, source_uri=source, source_version=version
        )
        answer = await self._call(self._documents.CheckDocument, request)
        return answer.document if answer.unchanged else None

    async def import_document(
        self, head: Head, document: Document, encoder: str, metadata: dict[str, Any], file: Path, parts: Sequence[Part]
    ) -> None:
        """Keep a document with its chunks; raises what ImportDocument fails with."""
        begin = documents_pb2.ImportDocumentRequest.Begin(
            document=_head(head),
            content_hash=document.content_hash,
            encoder=encoder,
            made=write_document(document),
            metadata=ParseDict(metadata, Struct()),
            source_uri=document.source,
            source_version=document.source_version,
        )
        with peer_errors(_MESH):
            call: Any = self._documents.ImportDocument(metadata=self._metadata, timeout=_IMPORT_TIMEOUT_S)
            async with streaming(call):
                await send(call, documents_pb2.ImportDocumentRequest(begin=begin))
                for message in _messages(document, file, parts):
                    await send(call, message)
                await call.done_writing()
                await call

    async def documents(self, collection: str) -> AsyncGenerator[documents_pb2.Document]:
        """All documents of a collection, by name."""
        request = documents_pb2.ListDocumentsRequest(parent=f"collections/{collection}", page_size=_PAGE)
        while True:
            page = await self._call(self._documents.ListDocuments, request)
            for document in page.documents:
                yield document
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def delete(self, name: str) -> bool:
        """Delete a document by its full name; False where there is none."""
        try:
            await self._call(self._documents.DeleteDocument, documents_pb2.DeleteDocumentRequest(name=name))
        except NotFound:
            return False
        return True

    async def _call(self, method: Any, request: Any) -> Any:
        with peer_errors(_MESH):
            return await method(request, metadata=self._metadata)


@asynccontextmanager
async def open_edge(access: EdgeAccess) -> AsyncIterator[EdgePeer]:
    """The mesh for one caller; open it in the loop that uses it."""
    if access.tls:
        channel = grpc.aio.secure_channel(access.target, grpc.ssl_channel_credentials())
    else:
        channel = grpc.aio.insecure_channel(access.target)
    async with MeshChannel(channel, ChannelSettings(), None) as wrapped:
        yield EdgePeer(wrapped, access.token)


class EdgeIndex:
    """Writes documents whose bytes are in an object store of ours through the edge. See IndexWriter."""

    def __init__(self, edge: EdgePeer, objects: ObjectStore, chunking: Asked | None) -> None:
        self._edge = edge
        self._objects = objects
        self._chunking = chunking

    async def write(
        self, document: Document, encoder: str, metadata: dict[str, Any], parts: AsyncGenerator[Part]
    ) -> None:
        """Import the document once all its vectors are there, so that the mesh waits for none."""
        began_s, start_s = time.monotonic(), (now() - document.stored_time).total_seconds()
        made = [part async for part in parts]
        timing = Timing(stage="embed", start_s=start_s, duration_s=time.monotonic() - began_s)
        timed = document.model_copy(update={"timings": (*document.timings, timing)})
        head = Head(
            collection=document.collection,
            uri=document.uri,
            metadata=document.metadata,
            chunking=self._chunking,
            size_bytes=document.size_bytes,
        )
        async with self._objects.open_file(document.object) as file:
            await self._edge.import_document(head, timed, encoder, metadata, file, made)


def _messages(document: Document, file: Path, parts: Sequence[Part]) -> Iterator[documents_pb2.ImportDocumentRequest]:
    """The bytes, then the chunks."""
    with file.open("rb") as opened:
        while data := opened.read(_PART_BYTES):
            yield documents_pb2.ImportDocumentRequest(part=documents_pb2.UploadDocumentRequest.Part(data=data))
    for part in parts:
        # What the document's record says need not be said of each chunk.
        yield documents_pb2.ImportDocumentRequest(chunks=write_part(document, Struct(), part))


def _head(head: Head) -> documents_pb2.DocumentHead:
    return documents_pb2.DocumentHead(
        parent=f"collections/{head.collection}",
        uri=head.uri,
        metadata=ParseDict(dict(head.metadata), Struct()),
        chunking=_chunking(*head.chunking) if head.chunking else None,
        size_bytes=head.size_bytes,
    )


def _chunking(strategy: str, parameters: Mapping[str, Any]) -> chunking_pb2.Chunking:
    return chunking_pb2.Chunking(strategy=strategy, parameters=ParseDict(dict(parameters), Struct()))
