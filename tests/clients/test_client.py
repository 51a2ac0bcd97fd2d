"""The Python client against a real server on the loopback."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import grpc
import pytest

from ragmesh.ingest.v1 import documents_pb2, jobs_pb2
from ragmesh_client import (
    Cited,
    Client,
    Failed,
    Final,
    InvalidRequestError,
    NotAllowedError,
    NotFoundError,
    Started,
    Token,
    UnavailableError,
)
from ragmesh_client.settings import find_access
from tests.clients.answering import TOKEN
from tests.clients.small_mesh import SmallMesh


async def test_ask_yields_typed_events_in_order(mesh: SmallMesh) -> None:
    """Each event is of its class, numbered without a gap, and the tokens make the answer's text."""
    async with Client(mesh.address, TOKEN) as client:
        events = [event async for event in client.ask("How long?", "handbook")]
    assert [type(event) for event in events] == [Started, Token, Token, Token, Cited, Final]
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5, 6]
    text = "".join(event.text for event in events if isinstance(event, Token))
    final = events[-1]
    assert isinstance(final, Final)
    assert text == final.answer.text == "Thirty days. [1]"


async def test_leaving_an_answer_early_cancels_it(mesh: SmallMesh) -> None:
    """A caller that leaves the loop frees the server within 100 ms."""
    async with Client(mesh.address, TOKEN) as client:
        events = client.ask("slow please", "handbook")
        async for event in events:
            if isinstance(event, Token):
                break
        await events.aclose()
        async with asyncio.timeout(0.1):
            await mesh.answers.left.wait()


async def test_a_failure_in_mid_answer_is_yielded_and_raised(mesh: SmallMesh) -> None:
    """The error event comes first, then the error with the published reason."""
    seen = []
    async with Client(mesh.address, TOKEN) as client:
        with pytest.raises(UnavailableError) as raised:  # what came before the error counts
            async for event in client.ask("fail please", "handbook"):
                seen.append(type(event))  # a comprehension would lose them with the error
    assert seen == [Started, Token, Failed]
    assert raised.value.reason == "ENGINE_UNAVAILABLE"


async def test_a_stream_without_its_last_event_was_cut_off(mesh: SmallMesh) -> None:
    """A clean end before `final` raises UNAVAILABLE rather than pass for a whole answer."""
    async with Client(mesh.address, TOKEN) as client:
        with pytest.raises(UnavailableError) as raised:
            [event async for event in client.ask("cut please", "handbook")]
    assert raised.value.reason == "PEER_UNAVAILABLE"


async def test_errors_carry_reason_and_violations(mesh: SmallMesh) -> None:
    """Each failure becomes the class of its code, with the published reason and the fields that are wrong."""
    async with Client(mesh.address, TOKEN) as client:
        with pytest.raises(NotFoundError) as missing:
            [event async for event in client.ask("How long?", "nowhere")]
        with pytest.raises(InvalidRequestError) as malformed:
            await client.search("leave", "handbook", filter="year >")
    assert missing.value.reason == "COLLECTION_NOT_FOUND"
    assert malformed.value.violations == {"filter": "expected a value at 7"}
    async with Client(mesh.address, "forged") as stranger:
        with pytest.raises(NotAllowedError) as refused:
            await stranger.status()
    assert refused.value.reason == "IDENTITY_INVALID"


async def test_an_upload_that_is_refused_says_why(mesh: SmallMesh) -> None:
    """A refusal that comes while bytes are being sent is told, each time, not covered by the failed write."""
    reasons = []
    for _ in range(40):
        async with Client(mesh.address, "forged") as client:
            with pytest.raises(NotAllowedError) as refused:
                [step async for step in client.upload(b"x" * 600_000, "handbook", uri="x.txt")]
        reasons.append(refused.value.reason)
    assert set(reasons) == {"IDENTITY_INVALID"}


async def test_nothing_listening_is_unavailable() -> None:
    """A mesh that is not there raises UNAVAILABLE within the time allowed."""
    async with Client("127.0.0.1:9", TOKEN, timeout_s=5) as client, asyncio.timeout(5):
        with pytest.raises(UnavailableError) as raised:
            await client.ask_once("How long?", "handbook")
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE


async def test_upload_sends_all_bytes_and_yields_progress(mesh: SmallMesh, tmp_path: Path) -> None:
    """A file larger than one part arrives whole."""
    file = tmp_path / "leave.md"
    file.write_bytes(b"thirty days\n" * 60_000)
    async with Client(mesh.address, TOKEN) as client:
        states = [step.state async for step in client.upload(file, "handbook", uri="leave.md")]
    state = documents_pb2.Document.State
    assert states == [state.STATE_RECEIVING, state.STATE_STORED, state.STATE_READY]
    assert mesh.documents.bytes["leave.md"] == file.read_bytes()


async def test_ingest_takes_a_folder_and_one_bad_file_stops_no_other(mesh: SmallMesh, tmp_path: Path) -> None:
    """Every file of a folder ends; the bad one with its reason; hidden files are left out."""
    for number in range(12):
        (tmp_path / f"page-{number:02}.md").write_text(f"page {number}")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "broken.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / ".hidden").write_text("no")
    async with Client(mesh.address, TOKEN) as client:
        ended = [step async for step in client.ingest([tmp_path], "handbook", concurrency=3) if step.ended]
    failed = {str(step.path.relative_to(tmp_path)): step.error.reason for step in ended if step.error}
    assert len(ended) == 13
    assert failed == {"sub/broken.txt": "UNREADABLE_DOCUMENT"}
    assert "sub/broken.txt" in mesh.documents.bytes


async def test_leaving_an_ingestion_early_stops_it(mesh: SmallMesh, tmp_path: Path) -> None:
    """A reader that leaves after the first step leaves no task behind."""
    for number in range(50):
        (tmp_path / f"{number}.md").write_text("x")
    before = asyncio.all_tasks()
    async with Client(mesh.address, TOKEN) as client:
        steps = client.ingest([tmp_path], "handbook", concurrency=4)
        async for _ in steps:
            break
        async with asyncio.timeout(2):
            await steps.aclose()
    await asyncio.sleep(0.05)
    ours = [task for task in asyncio.all_tasks() - before if "upload" in repr(task.get_coro())]
    assert ours == []


async def test_lists_follow_their_pages(mesh: SmallMesh) -> None:
    """A list goes on over the pages to the end."""
    async with Client(mesh.address, TOKEN) as client:
        names = [session.name async for session in client.list_sessions()]
    assert names == ["sessions/s1", "sessions/s2"]


def test_access_is_given_then_environment_then_local_mesh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is given comes first, then the environment, then the mesh that runs in the folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAGMESH_TARGET", raising=False)
    monkeypatch.delenv("RAGMESH_TOKEN", raising=False)
    assert find_access(None, None).target == "127.0.0.1:8080"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "token").write_text("local\n")
    state = {"edge": "127.0.0.1:7777", "token_file": str(tmp_path / "data" / "token")}
    (tmp_path / "data" / "mesh.json").write_text(json.dumps(state))
    assert find_access(None, None) == find_access("127.0.0.1:7777", "local")
    monkeypatch.setenv("RAGMESH_TARGET", "mesh:443")
    assert find_access(None, None).target == "mesh:443"
    assert find_access("given:1", "token").target == "given:1"


async def test_a_reindexing_is_followed_and_cancelled(mesh: SmallMesh) -> None:
    """The job comes at once, as it moves, and as it ended."""
    async with Client(mesh.address, TOKEN) as client:
        states = [job.state async for job in client.reindex("handbook", encoder="bigger", language="english")]
        cancelled = await client.cancel_job("j1")
    job = jobs_pb2.Job
    assert states == [job.STATE_PENDING, job.STATE_RUNNING, job.STATE_SUCCEEDED]
    assert (cancelled.state, cancelled.collection) == (job.STATE_CANCELLED, "collections/handbook")
    assert (cancelled.reindexing.encoder, cancelled.reindexing.language) == ("bigger", "english")
