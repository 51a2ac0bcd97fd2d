"""Uploads on a stream: refused, broken off and gone on with, given twice at once."""

import asyncio
import fcntl
from contextlib import suppress
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import pytest

from ragmesh.ingest.v1 import documents_pb2
from ragmesh.retriever.v1 import index_pb2
from tests.ingest_svc.conftest import HANDBOOK, World
from tests.ingest_svc.failures import failure_of
from tests.ingest_svc.uploads import PAGE, READY, RECEIVING, STORED, begin, part, upload


async def test_an_upload_tells_how_it_goes(world: World) -> None:
    """The upload's id comes first, then the states in order, to the end."""
    await world.alice.create_collection()
    data = PAGE.encode()
    checked = part(data[1000:], google_crc32c.value(data[1000:]))
    told = await upload(world.alice, begin(document_id="pods", size_bytes=len(data)), part(data[:1000]), checked)
    states = [progress.state for progress in told]
    assert states[0] == RECEIVING
    assert told[0].upload_id
    assert STORED in states
    assert states[-1] == READY
    assert told[-1].document == f"{HANDBOOK}/documents/pods"
    assert told[-1].chunks_done == told[-1].chunks_total == len(world.peers.index.chunks(told[-1].document))


BAD_UPLOADS = [
    ([part(b"x")], "INVALID_ARGUMENT", "OUT_OF_ORDER"),
    ([begin(), begin()], "INVALID_ARGUMENT", "OUT_OF_ORDER"),
    ([], "INVALID_ARGUMENT", "OUT_OF_ORDER"),
    ([begin(parent="collections/none")], "NOT_FOUND", "COLLECTION_NOT_FOUND"),
    ([begin(size_bytes=5_000_000)], "INVALID_ARGUMENT", "TOO_LARGE"),
    ([begin(), *[part(bytes(2_000_000))] * 3], "INVALID_ARGUMENT", "TOO_LARGE"),
    ([begin(), part(b"abc", 1)], "DATA_LOSS", "CHECKSUM_MISMATCH"),
    ([begin(upload_id="0" * 32, offset=5)], "OUT_OF_RANGE", "OFFSET_MISMATCH"),
    ([begin(upload_id="../../etc/passwd")], "INVALID_ARGUMENT", "INVALID_FIELD"),
    ([begin(size_bytes=4), part(b"abc")], "INVALID_ARGUMENT", "INVALID_FIELD"),
    ([begin(document_id="a/b")], "INVALID_ARGUMENT", "INVALID_FIELD"),
]


@pytest.mark.parametrize(("messages", "code", "reason"), BAD_UPLOADS)
async def test_bad_uploads_are_refused(world: World, messages: list[Any], code: str, reason: str) -> None:
    """An upload out of order, too large, or of wrong bytes is refused with its reason, and nothing is kept of it."""
    await world.alice.create_collection()
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await upload(world.alice, *messages)
    assert failure_of(failed.value)[:2] == (code, reason)
    listed = await world.alice.documents.ListDocuments(documents_pb2.ListDocumentsRequest(parent=HANDBOOK))
    assert not listed.documents


BAD_HEADS = [
    ({"document_id": "a b"}, "INVALID_FIELD", ["document.document_id"]),
    ({"parent": "collections/other"}, "INVALID_FIELD", ["document.parent"]),
    ({"metadata": {"x": "y" * 20_000}}, "INVALID_FIELD", ["document.metadata"]),
    ({"metadata": {"team": 3}}, "INVALID_FIELD", ["document.metadata.team"]),
    ({"metadata": {"x": float("nan")}}, "INVALID_FIELD", ["document.metadata"]),
    ({"chunking": {"strategy": "agentic"}}, "STRATEGY_NOT_FOUND", []),
    ({"chunking": {"parameters": {"size": 3}}}, "STRATEGY_NOT_FOUND", []),
    ({"chunking": {"parameters": {"max_tokens": 1}}}, "INVALID_FIELD", ["document.chunking.parameters.max_tokens"]),
]


@pytest.mark.parametrize(("head", "reason", "fields"), BAD_HEADS)
async def test_bad_heads_are_refused(world: World, head: dict[str, Any], reason: str, fields: list[str]) -> None:
    """A head that breaks a rule is refused with its reason and the field."""
    kind = index_pb2.FilterableField
    await world.alice.create_collection(filterable_fields=[kind(field="team", type=kind.TYPE_STRING)])
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await world.alice.create("Text.", **head)
    assert failure_of(failed.value)[1:] == (reason, fields)


async def until_free(file: Path) -> None:
    """Return when no call writes the upload any more."""
    async with asyncio.timeout(5):
        while True:
            with file.open("rb") as opened, suppress(BlockingIOError):
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            await asyncio.sleep(0.01)


async def test_a_broken_upload_goes_on(world: World) -> None:
    """An upload whose caller left is taken up at the byte that was stored."""
    await world.alice.create_collection()
    data = PAGE.encode()
    call: Any = world.alice.documents.UploadDocument()
    await call.write(begin(document_id="pods"))
    upload_id = (await call.read()).progress.upload_id
    await call.write(part(data[:700]))
    uploads = world.settings.object_folder / "uploads" / "acme"
    async with asyncio.timeout(5):
        while (uploads / upload_id).stat().st_size < 700:
            await asyncio.sleep(0.01)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await upload(world.alice, begin(upload_id, 700))
    assert failure_of(failed.value)[:2] == ("ABORTED", "OFFSET_MISMATCH")
    call.cancel()
    await until_free(uploads / upload_id)
    told = await upload(world.alice, begin(upload_id, 700, document_id="pods"), part(data[700:]))
    assert told[0].bytes_received == 700
    assert told[-1].state == READY
    whole = await world.alice.create(PAGE, document_id="whole")
    assert (await world.alice.get(told[-1].document)).content_hash == whole.content_hash
    assert list(uploads.iterdir()) == []


async def test_the_same_upload_twice_at_once_is_one_work(world: World) -> None:
    """The same bytes given again while they are worked on join that work: both callers see it end."""
    await world.alice.create_collection()
    world.peers.embedder.behaviour.embed_pause_s = 0.1
    both = await asyncio.gather(*(world.alice.create(PAGE, document_id="pods") for _ in range(2)))
    assert [document.state for document in both] == [READY, READY]
    assert world.peers.index.writes[both[0].name] == 1
    assert len(list(world.settings.object_folder.glob("objects/*/*/*/*"))) == 1
