"""Streams that break are taken up again where they broke."""

from __future__ import annotations

import pytest

from ragmesh.gateway.v1 import answers_pb2, answers_pb2_grpc
from ragmesh_client import Client, Final, UnavailableError
from ragmesh_client.resuming import Patience
from ragmesh_client.taking_up import taken_up
from tests.clients.answering import TOKEN
from tests.clients.small_mesh import SmallMesh


@pytest.mark.parametrize("breaks", [0, 2])
async def test_broken_stream_is_taken_up(mesh: SmallMesh, breaks: int) -> None:
    """Each event comes once, however often the stream breaks, and the caller notices nothing."""
    mesh.answers.breaks = breaks
    async with Client(mesh.address, TOKEN) as client:
        events = [event async for event in client.ask("cut please", "handbook", linger_s=20)]
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5, 6]
    assert isinstance(events[-1], Final)
    assert mesh.answers.resumed == [2, 3, 4][: breaks + 1]
    assert mesh.answers.lingering[0] == 20


async def test_answer_that_failed_is_not_taken_up(mesh: SmallMesh) -> None:
    """An error that the mesh tells is the end."""
    async with Client(mesh.address, TOKEN) as client:
        with pytest.raises(UnavailableError, match="ENGINE_UNAVAILABLE"):
            _ = [event async for event in client.ask("fail please", "handbook", linger_s=20)]
    assert mesh.answers.resumed == []


async def test_answer_that_nobody_knows_was_cut_off(mesh: SmallMesh) -> None:
    """A mesh that forgot the answer leaves the error of the break."""
    mesh.answers.forgets = True
    async with Client(mesh.address, TOKEN) as client:
        with pytest.raises(UnavailableError, match="cut off"):
            _ = [event async for event in client.ask("cut please", "handbook", linger_s=20)]
    assert mesh.answers.resumed == [2]


async def test_patience_ends(mesh: SmallMesh) -> None:
    """A mesh that is away for longer than allowed raises what it raised last."""
    request = answers_pb2.AskRequest(question="cut please", collection="collections/handbook")
    async with Client(mesh.address, TOKEN) as client, Client("127.0.0.1:9", TOKEN) as away:
        stub = answers_pb2_grpc.AnswerServiceStub(client.channel)
        gone = answers_pb2_grpc.AnswerServiceStub(away.channel)
        events = taken_up(
            lambda left_s: stub.Ask(request, timeout=left_s, metadata=client.metadata),
            lambda place, left_s: gone.ResumeAnswer(place, timeout=left_s, metadata=client.metadata),
            5.0,
            Patience(max_attempts=3, backoff_s=0.001),
        )
        with pytest.raises(UnavailableError, match="PEER_UNAVAILABLE"):
            _ = [event async for event in events]
