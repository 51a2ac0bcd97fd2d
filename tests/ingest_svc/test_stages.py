"""The two stages of a document: found by its words first, then by its vectors too."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ragmesh.ingest.v1 import documents_pb2, jobs_pb2
from tests.ingest_svc.conftest import HANDBOOK, World
from tests.ingest_svc.failures import reason_of

READY, FAILED = documents_pb2.Document.STATE_READY, documents_pb2.Document.STATE_FAILED
EMBEDDING = documents_pb2.Document.STATE_EMBEDDING
# So many sentences have more tokens than a batch.
LARGE = 5000


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def until_state(world: World, name: str, state: int) -> Any:
    """The document, in that state."""
    async with asyncio.timeout(20):
        while (document := await world.alice.get(name)).state != state:
            await asyncio.sleep(0.02)
    return document


def texts(world: World, name: str) -> list[str]:
    """The text of the document's chunks in the index."""
    return [chunk.text for chunk in world.peers.index.chunks(name)]


def pending(world: World) -> set[str]:
    """The ids of the documents in the index that have no vectors."""
    held = world.peers.index.held["acme", HANDBOOK].pending
    return {name.rpartition("/")[2] for name in held}


@pytest.fixture
async def backlog(world: World) -> World:
    """A collection, and an encoder that is busy with a document `first` until its gate is opened."""
    await world.alice.create_collection()
    world.peers.embedder.behaviour.gate.clear()
    await world.alice.create("First of all.", wait=False, document_id="first")
    await until_state(world, f"{HANDBOOK}/documents/first", EMBEDDING)
    return world


def folder(world: World, tmp_path: Path, count: int) -> str:
    """The URI of a source with so many pages."""
    source = tmp_path / "source" / "pages"
    source.mkdir()
    for number in range(count):
        (source / f"page{number:02}.md").write_text(f"# Page {number}\n\nWords of page {number}.")
    return source.as_uri()


async def started(world: World, uri: str) -> str:
    """The name of a job over the source."""
    request = jobs_pb2.StartJobRequest(collection=HANDBOOK, source_uri=uri)
    return str((await world.alice.jobs.StartJob(request)).job.name)


async def job_of(world: World, name: str, enough: Callable[[Any], bool]) -> Any:
    """The job, when it is so."""
    async with asyncio.timeout(30):
        while not enough(job := (await world.alice.jobs.GetJob(jobs_pb2.GetJobRequest(name=name))).job):
            await asyncio.sleep(0.02)
    return job


async def test_words_are_found_while_vectors_wait(backlog: World) -> None:
    """Behind a backlog a document is found by its words; its vectors take their place in one write."""
    waiting = await backlog.alice.create("Second, and in a hurry.", wait=False, document_id="second")
    await until(lambda: pending(backlog) == {"second"})
    assert texts(backlog, waiting.name) == ["Second, and in a hurry."]
    document = await until_state(backlog, waiting.name, EMBEDDING)
    async with asyncio.timeout(5):
        while not document.HasField("searchable_time"):
            document = await backlog.alice.get(waiting.name)
    kept = list(backlog.settings.object_folder.glob("objects/acme/handbook/second/*.chunks"))
    assert len(kept) == 1
    backlog.peers.embedder.behaviour.gate.set()
    ready = await until_state(backlog, waiting.name, READY)
    assert ready.searchable_time == document.searchable_time
    assert ready.encoder == "words@1"
    assert [timing.stage for timing in ready.timings.timings] == ["parse", "chunk", "embed", "index"]
    assert pending(backlog) == set()
    assert backlog.peers.index.writes[waiting.name] == 1
    await until(lambda: not kept[0].exists())


async def test_nothing_is_written_twice_without_a_backlog(world: World) -> None:
    """Where nobody waits, the first write has the vectors."""
    await world.alice.create_collection()
    document = await world.alice.create("Alone.")
    assert world.peers.index.held["acme", HANDBOOK].version == 1
    assert document.HasField("searchable_time")


async def test_new_words_take_the_place_of_the_old_content(world: World) -> None:
    """Given again behind a backlog, a document is found by its new content alone, at each moment as a whole."""
    await world.alice.create_collection()
    old = await world.alice.create("The old content.", document_id="page")
    world.peers.embedder.behaviour.gate.clear()
    await world.alice.create("Before it.", wait=False, document_id="first")
    await until_state(world, f"{HANDBOOK}/documents/first", EMBEDDING)
    await world.alice.create("The new content.", wait=False, document_id="page")
    await until(lambda: texts(world, old.name) != ["The old content."])
    assert texts(world, old.name) == ["The new content."]
    world.peers.embedder.behaviour.gate.set()
    new = await until_state(world, old.name, READY)
    assert texts(world, old.name) == ["The new content."]
    (revision,) = new.history
    assert (revision.content_hash, revision.encoder, revision.size_bytes) == (old.content_hash, "words@1", 16)
    assert revision.token_count == old.token_count > 0
    assert [timing.stage for timing in revision.timings.timings] == ["parse", "chunk", "embed", "index"]


async def test_a_watcher_is_told_when_words_are_found(backlog: World) -> None:
    """The upload's progress says so before the document is ready."""

    async def sent() -> Any:
        head = documents_pb2.DocumentHead(parent=HANDBOOK, document_id="second")
        yield documents_pb2.UploadDocumentRequest(begin=documents_pb2.UploadDocumentRequest.Begin(document=head))
        yield documents_pb2.UploadDocumentRequest(part=documents_pb2.UploadDocumentRequest.Part(data=b"Some words."))

    told = []
    async for response in backlog.alice.documents.UploadDocument(sent()):
        told.append(response.progress)
        if response.progress.searchable:
            backlog.peers.embedder.behaviour.gate.set()
    searchable = [progress.state for progress in told if progress.searchable]
    assert searchable[0] == EMBEDDING
    assert searchable[-1] == READY


async def test_chunks_that_were_lost_are_cut_again(backlog: World) -> None:
    """What is kept between the stages only saves work."""
    name = f"{HANDBOOK}/documents/second"
    await backlog.alice.create("Second.", wait=False, document_id="second")
    await until(lambda: pending(backlog) == {"second"})
    async with asyncio.timeout(5):
        while not (await backlog.alice.get(name)).HasField("searchable_time"):
            await asyncio.sleep(0.01)
    (kept,) = backlog.settings.object_folder.glob("objects/acme/handbook/second/*.chunks")
    kept.unlink()
    backlog.peers.embedder.behaviour.gate.set()
    await until_state(backlog, name, READY)
    assert texts(backlog, name) == ["Second."]
    assert pending(backlog) == set()


def embedding(job: Any) -> int:
    """How many of the job's documents wait for their vectors."""
    return sum(stage.documents for stage in job.stages if stage.stage == "embed")


async def test_a_job_tells_how_its_stages_go(backlog: World, tmp_path: Path) -> None:
    """Its stages say where the documents are while nothing is encoded; small ones wait to be written once."""
    name = await started(backlog, folder(backlog, tmp_path, 12))
    job = await job_of(backlog, name, lambda job: embedding(job) == 12)
    assert (job.counts.ready, job.counts.searchable) == (0, 0)
    assert pending(backlog) == set()
    stages = {stage.stage: (stage.documents, stage.done) for stage in job.stages}
    assert list(stages) == ["parse", "chunk", "embed", "index"]
    assert stages == {"parse": (0, 12), "chunk": (0, 12), "embed": (12, 0), "index": (0, 0)}
    backlog.peers.embedder.behaviour.gate.set()
    job = await job_of(backlog, name, lambda job: job.state == jobs_pb2.Job.STATE_SUCCEEDED)
    assert (job.counts.found, job.counts.ready, job.counts.searchable, job.counts.chunks) == (12, 12, 0, 12)
    assert job.chunks_per_s > 0
    assert not job.stages
    assert pending(backlog) == set()


async def test_a_cancelled_job_leaves_no_half_of_a_document(backlog: World, tmp_path: Path) -> None:
    """Its new documents are gone within a second, also one that was large and found by its words."""
    uri = folder(backlog, tmp_path, 6)
    (tmp_path / "source" / "pages" / "large.txt").write_text("Many words. " * LARGE)
    name = await started(backlog, uri)
    await job_of(backlog, name, lambda job: job.counts.searchable == 1 and embedding(job) == 7)
    assert len(pending(backlog)) == 1
    await backlog.alice.jobs.CancelJob(jobs_pb2.CancelJobRequest(name=name))
    began_s = time.monotonic()
    held = backlog.peers.index.held["acme", HANDBOOK]
    await until(lambda: not held.documents)
    assert time.monotonic() - began_s < 5
    page = (await backlog.alice.documents.ListDocuments(documents_pb2.ListDocumentsRequest(parent=HANDBOOK))).documents
    async with asyncio.timeout(10):
        while any(each.state == EMBEDDING for each in page if not each.name.endswith("/first")):
            request = documents_pb2.ListDocumentsRequest(parent=HANDBOOK)
            page = (await backlog.alice.documents.ListDocuments(request)).documents
    failed = [each for each in page if not each.name.endswith("/first")]
    assert {(each.state, reason_of(each.error), each.chunk_count) for each in failed} == {(FAILED, "CANCELLED", 0)}
    backlog.peers.embedder.behaviour.gate.set()
    await until_state(backlog, f"{HANDBOOK}/documents/first", READY)
    assert list(held.documents) == [f"{HANDBOOK}/documents/first"]


async def test_an_upload_does_not_wait_for_a_job(world: World, tmp_path: Path) -> None:
    """A document given while a job's are encoded is ready long before them; so is another tenant's."""
    await world.alice.create_collection()
    bob = world.others["bob"]
    await bob.create_collection()
    world.peers.embedder.behaviour.embed_pause_s = 0.2
    name = await started(world, folder(world, tmp_path, 40))
    await job_of(world, name, lambda job: job.counts.ready >= 1)
    await asyncio.gather(world.alice.create("In a hurry."), bob.create("In a hurry too."))
    job = (await world.alice.jobs.GetJob(jobs_pb2.GetJobRequest(name=name))).job
    assert job.counts.ready < 30
    world.peers.embedder.behaviour.embed_pause_s = 0
    await job_of(world, name, lambda job: job.counts.ready == 40)


async def test_a_failure_takes_the_words_back(backlog: World) -> None:
    """A document that cannot be encoded is not left to be found by its words."""
    name = f"{HANDBOOK}/documents/second"
    await backlog.alice.create("Second.", wait=False, document_id="second")
    await until(lambda: pending(backlog) == {"second"})
    backlog.peers.index.behaviour.faults = 1000
    backlog.peers.embedder.behaviour.gate.set()
    document = await until_state(backlog, name, FAILED)
    assert reason_of(document.error) == "INTERNAL_ERROR"
    assert texts(backlog, name) == []
