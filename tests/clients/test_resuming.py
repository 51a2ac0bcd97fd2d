"""Uploads that break off and go on."""

from __future__ import annotations

import pytest

from ragmesh.ingest.v1 import documents_pb2, documents_pb2_grpc
from ragmesh_client import Client, UnavailableError, uploads
from ragmesh_client.resuming import Patience, resumed
from ragmesh_client.strategies import chunking
from tests.clients.answering import TOKEN
from tests.clients.small_mesh import SmallMesh

DATA = b"thirty days\n" * 100_000


async def test_a_broken_upload_goes_on_where_the_mesh_has_its_bytes(mesh: SmallMesh) -> None:
    """The mesh has more than it had told of: it names its byte, and only what is missing is sent again."""
    mesh.documents.breaks, mesh.documents.break_at = 1, 600_000
    async with Client(mesh.address, TOKEN) as client:
        states = [step.state async for step in client.upload(DATA, "handbook", uri="leave.md")]
    assert states[-1] == documents_pb2.Document.STATE_READY
    assert mesh.documents.bytes["leave.md"] == DATA
    assert mesh.documents.begun == [0, 0, 600_000]


async def test_an_upload_that_breaks_for_ever_is_given_up(mesh: SmallMesh) -> None:
    """A bounded number of attempts without a byte of progress, then the error."""
    mesh.documents.breaks, mesh.documents.break_at = 1000, 1
    head = documents_pb2.DocumentHead(parent="collections/handbook", uri="leave.md", size_bytes=len(DATA))
    async with Client(mesh.address, TOKEN) as client:
        stub = documents_pb2_grpc.DocumentServiceStub(client.channel)
        steps = resumed(
            lambda messages: stub.UploadDocument(messages, metadata=client.metadata),
            lambda place: uploads.messages(head, DATA, place.upload_id, place.offset),
            Patience(max_attempts=4, backoff_s=0.001),
        )
        with pytest.raises(UnavailableError):
            _ = [step async for step in steps]
    assert mesh.documents.begun == [0, 0, 1, 1]


async def test_a_mesh_that_is_not_there_is_not_tried_again() -> None:
    """Nothing was begun, so nothing is to be taken up: the error comes at once."""
    async with Client("127.0.0.1:9", TOKEN) as client:
        with pytest.raises(UnavailableError):
            _ = [step async for step in client.upload(b"x", "handbook")]


async def test_what_comes_with_an_upload_reaches_the_mesh(mesh: SmallMesh) -> None:
    """Metadata, chunking and password are in the head."""
    async with Client(mesh.address, TOKEN) as client:
        steps = client.upload(
            b"x",
            "handbook",
            uri="a.md",
            metadata={"team": "hr"},
            chunking=chunking("recursive", max_tokens=120),
            password="open",
        )
        async for _ in steps:
            pass
    (head,) = mesh.documents.heads
    assert head.metadata["team"] == "hr"
    assert (head.chunking.strategy, head.chunking.parameters["max_tokens"]) == ("recursive", 120)
    assert head.password == "open"
