"""Reindexing over a real channel: another encoder for a collection that goes on serving and changing."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from meshkit.testing import connect
from ragmesh.ingest.v1 import collections_pb2, documents_pb2, jobs_pb2
from tests.ingest_svc.conftest import ALICE, HANDBOOK, Client, World, settings_of
from tests.ingest_svc.failures import failure_of, reason_of
from tests.ingest_svc.peers import Peers, open_peers
from tests.ingest_svc.test_durability import free_port, process, until_serving
from tests.redis_server import RedisServer

BESIDE = "collections/_handbook"
SUCCEEDED, FAILED = jobs_pb2.Job.STATE_SUCCEEDED, jobs_pb2.Job.STATE_FAILED


async def reindex(client: Client, encoder: str = "bigger", **more: Any) -> Any:
    """Start a reindexing and return its job."""
    request = jobs_pb2.ReindexCollectionRequest(collection=HANDBOOK, encoder=encoder, **more)
    return (await client.jobs.ReindexCollection(request)).job


async def ended(client: Client, job: Any) -> Any:
    """The job at its end."""
    async with asyncio.timeout(30):
        told = [each async for each in client.jobs.WatchJob(jobs_pb2.WatchJobRequest(name=job.name))]
    return told[-1].job


async def encoder_of(client: Client) -> str:
    """The encoder that the collection's record names."""
    request = collections_pb2.GetCollectionRequest(name=HANDBOOK)
    return str((await client.collections.GetCollection(request)).collection.encoder)


async def filled(world: World, count: int = 3) -> None:
    """A collection of so many documents, `page0` and on, by the default encoder; another is served too."""
    world.peers.embedder.behaviour.others = ("bigger",)
    await world.alice.create_collection()
    for number in range(count):
        await world.alice.create(f"Words of page {number}.", document_id=f"page{number}")


def held(peers: Peers, name: str = HANDBOOK) -> dict[str, str]:
    """The text of each document in the index, by its id."""
    documents = peers.index.held["acme", name].documents
    # One whose stream a crash cut off has no chunks here, until it is written again.
    return {document.split("/")[-1]: chunks[0].text for document, chunks in documents.items() if chunks}


def beside(peers: Peers) -> bool:
    """Whether there is an index beside the collection's own."""
    return ("acme", BESIDE) in peers.index.held


async def until_building(world: World, documents: int = 1) -> None:
    """Return when the index beside has so many documents."""
    async with asyncio.timeout(20):
        while not beside(world.peers) or len(held(world.peers, BESIDE)) < documents:
            await asyncio.sleep(0.01)


async def test_a_collection_gets_another_encoder(world: World) -> None:
    """Its documents are encoded by it, the index beside is gone, and the same bytes again cost nothing."""
    await filled(world)
    before = held(world.peers)
    job = await reindex(world.alice)
    assert (job.reindexing.encoder, job.reindexing.language, job.source_uri) == ("bigger@1", "standard", "")
    job = await ended(world.alice, job)
    assert (job.state, job.counts.found, job.counts.ready, job.counts.chunks) == (SUCCEEDED, 3, 3, 3)
    assert world.peers.index.held["acme", HANDBOOK].spec.encoder == "bigger@1" == await encoder_of(world.alice)
    assert held(world.peers) == before
    assert not beside(world.peers)
    encoded = len(world.peers.embedder.texts)
    again = await world.alice.create("Words of page 1.", document_id="page1")
    assert again.state == documents_pb2.Document.STATE_READY
    assert len(world.peers.embedder.texts) == encoded


async def test_a_collection_gets_another_language(world: World) -> None:
    """With the encoder that it has; what it is already needs no work."""
    await filled(world)
    job = await ended(world.alice, await reindex(world.alice, "words", language="english"))
    assert (job.state, job.counts.ready) == (SUCCEEDED, 3)
    assert world.peers.index.held["acme", HANDBOOK].spec.language == "english"
    encoded = len(world.peers.embedder.texts)
    job = await ended(world.alice, await reindex(world.alice, ""))
    assert (job.state, job.counts.found, len(world.peers.embedder.texts)) == (SUCCEEDED, 0, encoded)


async def test_what_changes_meanwhile_is_not_lost(world: World) -> None:
    """Uploads, replacements, deletions and settings that come while the index is built; the old one serves on."""
    await filled(world, 12)
    world.peers.embedder.behaviour.embed_pause_s = 0.1
    job = await reindex(world.alice)
    await until_building(world, 2)
    assert world.peers.index.held["acme", HANDBOOK].spec.encoder == "words@1"
    for number in (0, 9):
        await world.alice.documents.DeleteDocument(
            documents_pb2.DeleteDocumentRequest(name=f"{HANDBOOK}/documents/page{number}")
        )
    settings = collections_pb2.Collection(name=HANDBOOK, display_name="Pages")
    await world.alice.collections.UpdateCollection(
        collections_pb2.UpdateCollectionRequest(collection=settings, update_mask=FieldMask(paths=["display_name"]))
    )
    changed = {"page1": "Page one is new.", "page10": "Page ten is new.", "more": "One page more."}
    for id, text in changed.items():
        await world.alice.create(text, document_id=id)
        assert held(world.peers)[id] == text
    assert (await ended(world.alice, job)).state == SUCCEEDED
    expected = {f"page{number}": f"Words of page {number}." for number in range(12)} | changed
    del expected["page0"], expected["page9"]
    assert held(world.peers) == expected
    assert await encoder_of(world.alice) == "bigger@1"


async def test_uploads_under_way_at_the_switch_are_in_the_new_index(world: World) -> None:
    """A stream of uploads across the switch: each is ready, and findable by the new encoder."""
    await filled(world)
    world.peers.embedder.behaviour.embed_pause_s = 0.03
    job = await reindex(world.alice)

    async def upload(lane: int) -> int:
        for number in range(1000):
            await world.alice.create(f"Lane {lane} number {number}.", document_id=f"lane{lane}-{number}")
            if await encoder_of(world.alice) == "bigger@1":
                return number + 1
        return 1000

    counts = await asyncio.gather(*(upload(lane) for lane in range(3)))
    assert (await ended(world.alice, job)).state == SUCCEEDED
    names = {f"lane{lane}-{number}" for lane, count in enumerate(counts) for number in range(count)}
    assert names <= held(world.peers).keys()
    assert world.peers.index.held["acme", HANDBOOK].spec.encoder == "bigger@1"


async def test_an_encoder_that_is_gone_is_replaced(world: World) -> None:
    """The server has another revision now: what is uploaded during the reindexing is ready after it."""
    await filled(world)
    world.peers.embedder.behaviour.revision = "2"
    world.peers.embedder.behaviour.embed_pause_s = 0.2
    job = await reindex(world.alice, "")
    await until_building(world)
    late = await world.alice.create("A late page.", document_id="late")
    assert late.state == documents_pb2.Document.STATE_READY
    assert (await ended(world.alice, job)).state == SUCCEEDED
    assert held(world.peers)["late"] == "A late page."
    assert await encoder_of(world.alice) == "words@2"


async def test_a_cancelled_reindexing_leaves_all_as_it_was(world: World) -> None:
    """The index beside goes, uploads go on, and another reindexing may come."""
    await filled(world, 10)
    world.peers.embedder.behaviour.embed_pause_s = 0.1
    job = await reindex(world.alice)
    await until_building(world)
    await world.alice.jobs.CancelJob(jobs_pb2.CancelJobRequest(name=job.name))
    async with asyncio.timeout(10):
        while beside(world.peers):
            await asyncio.sleep(0.02)
    assert (world.peers.index.held["acme", HANDBOOK].spec.encoder, await encoder_of(world.alice)) == (("words@1",) * 2)
    world.peers.embedder.behaviour.embed_pause_s = 0
    assert (await world.alice.create("On it goes.")).state == documents_pb2.Document.STATE_READY
    job = await ended(world.alice, await reindex(world.alice))
    assert (job.state, job.counts.ready) == (SUCCEEDED, 11)


async def test_a_collection_is_reindexed_once_at_a_time(world: World) -> None:
    """A second job is refused while the first runs; the same request finds the first again."""
    await filled(world)
    world.peers.embedder.behaviour.embed_pause_s = 0.2
    job = await reindex(world.alice, request_id="r1")
    await until_building(world)
    assert (await reindex(world.alice, request_id="r1")).name == job.name
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await reindex(world.alice)
    assert failure_of(failed.value)[:2] == ("FAILED_PRECONDITION", "REINDEX_UNDER_WAY")
    assert (await ended(world.alice, job)).state == SUCCEEDED


async def test_a_document_that_cannot_be_built_fails_the_job(world: World) -> None:
    """One that is findable now: the collection stays as it was, and the job names the document."""
    await filled(world)
    for file in (world.settings.object_folder).rglob("*"):
        if file.is_file() and "page1" in file.parts:
            file.unlink()
    job = await ended(world.alice, await reindex(world.alice))
    assert (job.state, job.counts.failed, reason_of(job.error)) == (FAILED, 1, "INTERNAL_ERROR")
    assert job.failures[0].document == f"{HANDBOOK}/documents/page1"
    assert await encoder_of(world.alice) == "words@1"
    assert len(held(world.peers)) == 3
    assert not beside(world.peers)


async def test_a_fault_of_the_index_fails_no_document(world: World) -> None:
    """One that died in mid-stream is tried again."""
    await filled(world)
    world.peers.index.behaviour.faults = 2
    job = await ended(world.alice, await reindex(world.alice))
    assert (job.state, job.counts.ready) == (SUCCEEDED, 3)


async def test_what_a_reindexing_refuses(world: World) -> None:
    """An unknown encoder, another tenant's collection, a caller who may not."""
    await filled(world)
    for client, encoder, reason in [
        (world.alice, "none", "MODEL_NOT_FOUND"),
        (world.others["bob"], "bigger", "COLLECTION_NOT_FOUND"),
        (world.others["reader"], "bigger", "SCOPE_MISSING"),
    ]:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await reindex(client, encoder)
        assert failure_of(failed.value)[1] == reason


async def test_a_deleted_collection_leaves_no_index(world: World) -> None:
    """Deleted while it is reindexed: neither its own nor the one beside it stays."""
    await filled(world, 6)
    world.peers.embedder.behaviour.embed_pause_s = 0.1
    job = await reindex(world.alice)
    await until_building(world)
    await world.alice.collections.DeleteCollection(collections_pb2.DeleteCollectionRequest(name=HANDBOOK, force=True))
    assert (await ended(world.alice, job)).state == FAILED
    assert world.peers.index.held == {}


async def test_a_switch_that_was_not_answered_is_not_done_twice(world: World) -> None:
    """The index died in the moment of the switch: the job finds that it happened, and ends."""
    await filled(world)
    world.peers.index.behaviour.dies_switching = True
    job = await ended(world.alice, await reindex(world.alice))
    assert (job.state, job.counts.ready) == (SUCCEEDED, 3)
    assert await encoder_of(world.alice) == "bigger@1"
    assert all(count == 1 for name, count in world.peers.index.writes.items() if name.startswith(BESIDE))


async def test_a_killed_process_loses_no_reindexing(tmp_path: Path, empty_redis: RedisServer) -> None:
    """Killed in its middle, it is finished by the next process, each document built once."""
    async with open_peers() as peers:
        peers.embedder.behaviour.others = ("bigger",)
        listen = f"127.0.0.1:{free_port()}"
        settings = settings_of(tmp_path, empty_redis, peers, listen=listen)
        values = settings.model_dump(exclude_unset=True, exclude={"channel"})
        async with process(values) as first, connect(listen, ALICE) as channel:
            await until_serving(channel)
            client = Client(channel)
            await client.create_collection()
            for number in range(8):
                await client.create(f"Words of page {number}.", document_id=f"page{number}")
            peers.embedder.behaviour.embed_pause_s = 0.15
            job = await reindex(client)
            async with asyncio.timeout(20):
                while not beside(peers) or len(held(peers, BESIDE)) < 3:
                    await asyncio.sleep(0.01)
            first.send_signal(signal.SIGKILL)
            await first.wait()
        built = len(held(peers, BESIDE))
        assert built < 8
        peers.embedder.behaviour.embed_pause_s = 0
        async with process(values), connect(listen, ALICE) as channel:
            await until_serving(channel)
            job = await ended(Client(channel), job)
            assert (job.state, job.counts.ready, await encoder_of(Client(channel))) == (SUCCEEDED, 8, "bigger@1")
    writes = [count for name, count in peers.index.writes.items() if name.startswith(BESIDE)]
    # The one that was being built when the process died may have been built again.
    assert (len(writes), sum(count > 1 for count in writes) <= 1) == (8, True)
    assert len(held(peers)) == 8
