"""A document that was ready, given again: should the newer content fail, it stays as it was."""

import asyncio
from typing import Any

import pytest

from ragmesh.ingest.v1 import documents_pb2, jobs_pb2
from tests.ingest_svc.conftest import HANDBOOK, World
from tests.ingest_svc.failures import reason_of
from tests.ingest_svc.test_stages import EMBEDDING, LARGE, until, until_state
from tests.ingest_svc.uploads import FAILED, READY, begin, part, upload

NAME = f"{HANDBOOK}/documents/page"
BROKEN = b"%PDF-1.7 and nothing more"


@pytest.fixture
async def old(world: World) -> Any:
    """A document that is ready, with one earlier content."""
    await world.alice.create_collection()
    await world.alice.create("The oldest content.", document_id="page")
    return await world.alice.create("The old content.", document_id="page")


def texts(world: World) -> list[str]:
    """The text of the document's chunks in the index."""
    return [chunk.text for chunk in world.peers.index.chunks(NAME)]


def objects(world: World) -> int:
    """How many files are kept of the document."""
    return len(list(world.settings.object_folder.glob("objects/acme/handbook/page/*")))


async def test_a_broken_content_leaves_the_ready_one(world: World, old: Any) -> None:
    """Its upload fails with the reason; the document stays as it was, findable, and says what it should have become."""
    last = (await upload(world.alice, begin(document_id="page"), part(BROKEN)))[-1]
    assert (last.state, reason_of(last.error)) == (FAILED, "UNREADABLE_DOCUMENT")
    document = await world.alice.get(NAME)
    lost = document.failed_replacement
    assert (reason_of(lost.error), lost.size_bytes) == ("UNREADABLE_DOCUMENT", len(BROKEN))
    document.ClearField("failed_replacement")
    document.update_time.CopyFrom(old.update_time)
    assert document == old
    assert texts(world) == ["The old content."]
    assert objects(world) == 1


async def test_a_ready_content_ends_the_account_of_a_broken_one(world: World, old: Any) -> None:
    """What failed is forgotten with the content that stayed, whose bytes are no longer kept."""
    await world.alice.create(BROKEN, document_id="page")
    new = await world.alice.create("The new content.", document_id="page")
    assert (new.state, new.HasField("failed_replacement")) == (READY, False)
    assert new.history[0].content_hash == old.content_hash
    assert len(new.history) == 2
    assert texts(world) == ["The new content."]
    assert objects(world) == 1


async def test_a_content_that_was_found_by_its_words_gives_way_to_the_ready_one(world: World, old: Any) -> None:
    """Where the words of a content that fails took its place, what was ready before is indexed again."""
    behaviour = world.peers.embedder.behaviour
    behaviour.gate.clear()
    await world.alice.create("Before it.", wait=False, document_id="first")
    await until_state(world, f"{HANDBOOK}/documents/first", EMBEDDING)
    await world.alice.create("The new content.", wait=False, document_id="page")
    await until(lambda: texts(world) == ["The new content."])
    # Broken, and given before the one before it had its vectors.
    last = (await upload(world.alice, begin(document_id="page"), part(BROKEN)))[-1]
    assert (last.state, reason_of(last.error)) == (FAILED, "UNREADABLE_DOCUMENT")
    await until(lambda: texts(world) == ["The old content."])
    behaviour.gate.set()
    document = await until_state(world, NAME, READY)
    assert document.content_hash == old.content_hash
    assert texts(world) == ["The old content."]
    await until(lambda: objects(world) == 1)


async def test_a_content_that_never_was_ready_leaves_nothing(world: World) -> None:
    """Words that waited for their vectors go where a broken content takes their place."""
    await world.alice.create_collection()
    world.peers.embedder.behaviour.gate.clear()
    await world.alice.create("Before it.", wait=False, document_id="first")
    await until_state(world, f"{HANDBOOK}/documents/first", EMBEDDING)
    await world.alice.create("Some words.", wait=False, document_id="page")
    await until(lambda: texts(world) == ["Some words."])
    await upload(world.alice, begin(document_id="page"), part(BROKEN))
    assert (await world.alice.get(NAME)).state == FAILED
    assert texts(world) == []
    world.peers.embedder.behaviour.gate.set()


async def test_a_cancelled_job_leaves_what_was_ready(world: World, tmp_path: Any) -> None:
    """What a job would have put in place of ready documents, large or small, is as if it had never come."""
    await world.alice.create_collection()
    source = tmp_path / "source"
    for name in ("small.txt", "large.txt"):
        (source / name).write_text("As it was.")
    request = jobs_pb2.StartJobRequest(collection=HANDBOOK, source_uri=source.as_uri())
    await _ended(world, (await world.alice.jobs.StartJob(request)).job.name)
    world.peers.embedder.behaviour.gate.clear()
    (source / "small.txt").write_text("Changed.")
    (source / "large.txt").write_text("Many words. " * LARGE)
    job = (await world.alice.jobs.StartJob(request)).job.name
    held = world.peers.index.held["acme", HANDBOOK]
    await until(lambda: len(held.pending) == 1)
    await world.alice.jobs.CancelJob(jobs_pb2.CancelJobRequest(name=job))
    async with asyncio.timeout(10):
        while not all(each.HasField("failed_replacement") for each in await _documents(world)):
            await asyncio.sleep(0.05)
    world.peers.embedder.behaviour.gate.set()
    await until(lambda: not held.pending and _texts(held) == {"As it was."})
    async with asyncio.timeout(10):
        while {(each.state, each.chunk_count) for each in await _documents(world)} != {(READY, 1)}:
            await asyncio.sleep(0.05)
    assert {reason_of(each.failed_replacement.error) for each in await _documents(world)} == {"CANCELLED"}


async def test_a_deleted_document_leaves_no_bytes(world: World, old: Any) -> None:
    """Neither those of what was ready nor those of what should have taken its place."""
    world.peers.embedder.behaviour.gate.clear()
    await world.alice.create("The new content.", wait=False, document_id="page")
    await until(lambda: objects(world) >= 2)
    world.peers.embedder.behaviour.gate.set()
    await world.alice.documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(name=NAME))
    await until(lambda: objects(world) == 0)
    assert texts(world) == []


def _texts(held: Any) -> set[str]:
    return {chunk.text for chunks in held.documents.values() for chunk in chunks}


async def _documents(world: World) -> Any:
    request = documents_pb2.ListDocumentsRequest(parent=HANDBOOK)
    return (await world.alice.documents.ListDocuments(request)).documents


async def _ended(world: World, name: str) -> None:
    async with asyncio.timeout(20):
        while (await world.alice.jobs.GetJob(jobs_pb2.GetJobRequest(name=name))).job.state in (
            jobs_pb2.Job.STATE_PENDING,
            jobs_pb2.Job.STATE_RUNNING,
        ):
            await asyncio.sleep(0.05)
