"""Documents that were made elsewhere, over a real channel: imported, refused, repeated, left half-way."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct

from ragmesh.common.v1 import chunk_pb2, vector_pb2
from ragmesh.ingest.v1 import chunking_pb2, documents_pb2
from ragmesh.retriever.v1 import index_pb2
from tests.ingest_svc.conftest import HANDBOOK, Client, World
from tests.ingest_svc.failures import failure_of
from tests.ingest_svc.peers import DIMENSION, vector

TEXT = "A Pod has a phase.\n\nPhases are few."
DATA = f"---\ntitle: Pods\n---\n{TEXT}\n".encode()
READY = documents_pb2.Document.STATE_READY
Request = documents_pb2.ImportDocumentRequest


def begin(encoder: str = "words@1", chunk_count: int = 2, data: bytes = DATA, **head: Any) -> Request:
    """How the document was made."""
    metadata = Struct()
    metadata.update({"team": "core"})
    made = documents_pb2.Document(
        title="Pods",
        media_type="text/markdown",
        parser="elsewhere 1",
        chunk_count=chunk_count,
        chunking=chunking_pb2.Chunking(strategy="character"),
        chunking_rationale="it is short",
        warnings=["a footnote was left out"],
    )
    return Request(
        begin=Request.Begin(
            document=documents_pb2.DocumentHead(**{"parent": HANDBOOK, "uri": "s3://docs/pods.md"} | head),
            content_hash=hashlib.sha256(data).hexdigest(),
            encoder=encoder,
            made=made,
            metadata=metadata,
            source_uri="s3://docs",
            source_version="v1",
        )
    )


def part(data: bytes) -> Request:
    """Some bytes."""
    return Request(part=documents_pb2.UploadDocumentRequest.Part(data=data))


def chunks(*texts: str, start: int = 0, ordinal: int = 0) -> Request:
    """Chunks with their vectors."""
    written = []
    for text in texts:
        end = start + len(text)
        span = chunk_pb2.Span(start=start, end=end)
        written.append(chunk_pb2.Chunk(ordinal=ordinal, text=text, source=span, token_count=4))
        start, ordinal = end + 2, ordinal + 1
    packed = vector_pb2.PackedVectors(
        data=b"".join(map(vector, texts)), dtype=vector_pb2.DATA_TYPE_FLOAT32, dimension=DIMENSION, count=len(texts)
    )
    return Request(chunks=index_pb2.UpsertDocumentRequest.Part(chunks=written, vectors=packed))


FIRST, SECOND = TEXT.split("\n\n")
CHUNKS = (chunks(FIRST), chunks(SECOND, start=20, ordinal=1))


async def send(client: Client, *messages: Request) -> Any:
    """Send the messages and return the response."""

    async def sent() -> AsyncIterator[Request]:
        for message in messages:
            yield message

    return await client.documents.ImportDocument(sent())


async def test_an_import_is_a_document_like_any_other(world: World) -> None:
    """It has its bytes, its record, its chunks and its metadata, and nothing of it was parsed or encoded here."""
    await world.alice.create_collection()
    response = await send(world.alice, begin(), part(DATA[:10]), part(DATA[10:]), *CHUNKS)
    document = await world.alice.get(response.document.name)
    assert (response.unchanged, document.state, document.title) == (False, READY, "Pods")
    assert (document.chunk_count, document.token_count, document.size_bytes) == (2, 8, len(DATA))
    assert (document.parser, document.encoder) == ("elsewhere 1", "words@1")
    assert (document.chunking.strategy, document.chunking_rationale) == ("character", "it is short")
    assert list(document.warnings) == ["a footnote was left out"]
    assert document.HasField("searchable_time")
    written = world.peers.index.chunks(document.name)
    assert [chunk.text for chunk in written] == [FIRST, SECOND]
    assert [chunk.name for chunk in written] == [f"{document.name}/chunks/{n}" for n in (0, 1)]
    assert {(chunk.title, chunk.uri, chunk.metadata["team"]) for chunk in written} == {
        ("Pods", "s3://docs/pods.md", "core")
    }
    assert (world.peers.embedder.texts, world.peers.index.writes) == ([], {document.name: 1})


async def test_an_import_again_does_nothing(world: World) -> None:
    """The same content in the same way is left as it is; another content takes its place, with a history."""
    await world.alice.create_collection()
    first = await send(world.alice, begin(), part(DATA), *CHUNKS)
    again = await send(world.alice, begin(), part(DATA), *CHUNKS)
    name = first.document.name
    assert (again.unchanged, again.document.update_time) == (True, first.document.update_time)
    assert world.peers.index.writes[name] == 1
    await send(world.alice, begin(data=b"Other.", chunk_count=1), part(b"Other."), chunks("Other."))
    assert [chunk.text for chunk in world.peers.index.chunks(name)] == ["Other."]
    assert [revision.chunk_count for revision in (await world.alice.get(name)).history] == [2]


async def test_what_is_indexed_need_not_be_sent(world: World) -> None:
    """A check finds a document by the version that its source has of it, or by its content; not another's."""
    await world.alice.create_collection()
    asked = begin().begin

    async def found(**values: Any) -> bool:
        request = documents_pb2.CheckDocumentRequest(document=asked.document, source_uri="s3://docs", **values)
        return bool((await world.alice.documents.CheckDocument(request)).unchanged)

    assert not await found(content_hash=asked.content_hash)
    await send(world.alice, begin(), part(DATA), *CHUNKS)
    assert await found(source_version="v1")
    assert not await found(source_version="v2")
    assert not await found(content_hash="0" * 64)
    assert await found(content_hash=asked.content_hash, source_version="v2")
    assert await found(source_version="v2")


async def test_nothing_is_kept_of_what_is_refused(world: World) -> None:
    """Another encoder, other bytes, chunks that do not follow each other or lack vectors: each has its reason."""
    await world.alice.create_collection()
    bare = chunks(FIRST)
    bare.chunks.ClearField("vectors")
    refused: Sequence[tuple[str, Sequence[Request]]] = (
        ("ENCODER_MISMATCH", [begin("words@2"), part(DATA), *CHUNKS]),
        ("CHECKSUM_MISMATCH", [begin(), part(DATA[1:]), *CHUNKS]),
        ("TOO_LARGE", [begin(size_bytes=5_000_000), part(DATA), *CHUNKS]),
        ("OUT_OF_ORDER", [part(DATA)]),
        ("OUT_OF_ORDER", [begin(), *CHUNKS, part(DATA)]),
        ("OUT_OF_ORDER", [begin(), part(DATA), CHUNKS[0]]),
        ("INVALID_FIELD", [begin(), part(DATA), CHUNKS[1]]),
        ("INVALID_FIELD", [begin(), part(DATA), bare]),
        ("INVALID_FIELD", [begin(chunk_count=1), part(DATA), chunks("", start=0)]),
        ("COLLECTION_NOT_FOUND", [begin(parent="collections/none"), part(DATA), *CHUNKS]),
    )
    for reason, messages in refused:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(world.alice, *messages)
        assert failure_of(caught.value)[1] == reason
    await expect_nothing(world, "alice")


async def test_a_stream_that_breaks_changes_nothing(world: World) -> None:
    """Who leaves between two messages leaves no document."""
    await world.alice.create_collection()
    reached = asyncio.Event()

    async def sent() -> AsyncIterator[Request]:
        for message in (begin(), part(DATA), CHUNKS[0]):
            yield message
        reached.set()
        await asyncio.Event().wait()

    call: Any = world.alice.documents.ImportDocument(sent())
    await reached.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await expect_nothing(world, "alice")
    assert (await send(world.alice, begin(), part(DATA), *CHUNKS)).document.state == READY


async def test_an_import_is_its_tenants(world: World) -> None:
    """Another tenant has no such collection, and who may only ask may not import."""
    await world.alice.create_collection()
    for caller, reason in (("bob", "COLLECTION_NOT_FOUND"), ("reader", "SCOPE_MISSING")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(world.others[caller], begin(), part(DATA), *CHUNKS)
        assert failure_of(caught.value)[1] == reason
    await expect_nothing(world, "alice")


async def test_what_cannot_be_written_is_read_here(world: World) -> None:
    """Once all has come the document is kept: with the index away the import fails, and the document does not."""
    await world.alice.create_collection()
    world.peers.index.behaviour.faults = 1
    with pytest.raises(grpc.aio.AioRpcError):
        await send(world.alice, begin(), part(DATA), *CHUNKS)
    again = await send(world.alice, begin(), part(DATA), *CHUNKS)
    document = await world.alice.get(again.document.name)
    assert document.state == READY
    assert world.peers.index.chunks(document.name)


async def expect_nothing(world: World, caller: str) -> None:
    """The collection has no document, and its index no chunk."""
    client = world.alice if caller == "alice" else world.others[caller]
    listed = await client.documents.ListDocuments(documents_pb2.ListDocumentsRequest(parent=HANDBOOK))
    assert not listed.documents
    assert not world.peers.index.writes
