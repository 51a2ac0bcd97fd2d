"""Ingestion whose bytes are in an object store: uploads, browsers' uploads, and a process killed meanwhile."""

import asyncio
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import httpx
import pytest

from ingest_svc.app import open_app
from meshkit.testing import connect, serve
from ragmesh.ingest.v1 import documents_pb2, jobs_pb2
from tests.ingest_svc.conftest import ALICE, HANDBOOK, Client, World, open_world, settings_of
from tests.ingest_svc.failures import failure_of
from tests.ingest_svc.object_stores import BUCKET, S3
from tests.ingest_svc.peers import open_peers
from tests.ingest_svc.test_durability import free_port, process, until_serving
from tests.redis_server import RedisServer

READY = documents_pb2.Document.STATE_READY
PAGE = "\n\n".join(f"# Heading {number}\n\n{'Words of a page. ' * 20}" for number in range(12)).encode()


def on_s3(s3: S3) -> dict[str, Any]:
    """The settings of ingestion that keeps its bytes in the bucket."""
    return {
        "object_store_url": f"s3://{BUCKET}/ragmesh",
        "object_store_part_bytes": 1000,
        "progress_bytes": 1,
        "object_store_timeout_s": 2.0,
        "s3_endpoint_url": s3.url,
    }


@pytest.fixture
async def s3_world(tmp_path: Path, empty_redis: RedisServer, s3: S3) -> AsyncIterator[World]:
    """Ingestion that keeps its bytes in the bucket."""
    async with open_world(tmp_path, empty_redis, **on_s3(s3)) as opened:
        yield opened


async def invited(client: Client, **more: Any) -> Any:
    """Ask for an upload URL."""
    return await client.documents.CreateUploadUrl(documents_pb2.CreateUploadUrlRequest(parent=HANDBOOK, **more))


async def taken_in(client: Client, source_uri: str) -> Any:
    """Run a job over what was put to an upload URL, to its end."""
    request = jobs_pb2.StartJobRequest(collection=HANDBOOK, source_uri=source_uri)
    name = (await client.jobs.StartJob(request)).job.name
    return [each async for each in client.jobs.WatchJob(jobs_pb2.WatchJobRequest(name=name))][-1].job


async def refused(client: Client, source_uri: str) -> None:
    """Show that the source cannot be read by the caller."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await taken_in(client, source_uri)
    assert failure_of(failed.value)[:2] == ("INVALID_ARGUMENT", "SOURCE_NOT_READABLE")


async def test_documents_live_in_the_store(s3_world: World, s3: S3) -> None:
    """A document's bytes are in the bucket while it is there, once however often they are given."""
    await s3_world.alice.create_collection()
    document = await s3_world.alice.create(PAGE, document_id="page")
    assert document.state == READY
    (key,) = s3.keys()
    assert key.startswith("ragmesh/objects/acme/handbook/page/")
    assert s3.get(key) == PAGE
    await s3_world.alice.create(PAGE, document_id="page")
    assert s3.keys() == [key]
    await s3_world.alice.documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(name=document.name))
    assert s3.keys() == []


async def test_a_caller_who_left_goes_on_at_the_last_byte(s3_world: World, s3: S3) -> None:
    """What waited in memory when the caller left is kept, so that nothing need be sent twice."""
    await s3_world.alice.create_collection()
    call: Any = s3_world.alice.documents.UploadDocument()
    await call.write(begin())
    upload_id = (await call.read()).progress.upload_id
    await call.write(part(PAGE[:1500]))
    await call.write(part(PAGE[1500:1700]))
    while (await call.read()).progress.bytes_received < 1700:
        pass
    assert len(s3.keys()) == 1
    call.cancel()
    async with asyncio.timeout(5):
        while len(s3.keys()) < 2:
            await asyncio.sleep(0.02)
    told = await uploaded(s3_world.alice, begin(upload_id, 1700), part(PAGE[1700:]))
    assert (told[0].bytes_received, told[-1].state) == (1700, READY)
    (key,) = s3.keys()
    assert s3.get(key) == PAGE


async def test_a_browser_puts_a_document_itself(s3_world: World, s3: S3) -> None:
    """What is PUT to an upload URL is taken in by a job, once; then it is gone from the inbox."""
    await s3_world.alice.create_collection()
    invitation = await invited(s3_world.alice, size_bytes=len(PAGE))
    left = invitation.expire_time.ToDatetime(UTC) - datetime.now(UTC)
    assert timedelta(minutes=14) < left < timedelta(minutes=16)
    await refused(s3_world.alice, invitation.source_uri)
    async with httpx.AsyncClient() as browser:
        (await browser.put(invitation.url, content=PAGE)).raise_for_status()
    job = await taken_in(s3_world.alice, f"{invitation.source_uri}/the page.md")
    assert (job.state, job.counts.found, job.counts.ready) == (jobs_pb2.Job.STATE_SUCCEEDED, 1, 1)
    held = s3_world.peers.index.held["acme", HANDBOOK].documents
    assert [chunks[0].uri for chunks in held.values()] == [f"{invitation.source_uri}/the page.md"]
    async with asyncio.timeout(5):
        while any("/uploads/" in key for key in s3.keys()):  # noqa: SIM118 - no mapping
            await asyncio.sleep(0.02)
    await refused(s3_world.alice, invitation.source_uri)


async def test_an_inbox_is_its_tenants(s3_world: World, s3: S3) -> None:
    """What a tenant put to an upload URL no other can name, in any way."""
    bob = s3_world.others["bob"]
    await s3_world.alice.create_collection()
    await bob.create_collection()
    invitation = await invited(s3_world.alice)
    async with httpx.AsyncClient() as browser:
        (await browser.put(invitation.url, content=PAGE)).raise_for_status()
    (key,) = s3.keys()
    id = invitation.source_uri.removeprefix("upload://")
    assert key == f"ragmesh/uploads/acme/{id}"
    for uri in (invitation.source_uri, f"upload://../acme/{id}", f"upload://acme/{id}", f"s3://{BUCKET}/{key}"):
        await refused(bob, uri)
    assert (await taken_in(s3_world.alice, invitation.source_uri)).counts.ready == 1


async def test_who_may_not_is_not_invited(s3_world: World) -> None:
    """An upload URL needs the scope, the collection, and a document that is not too large."""
    await s3_world.alice.create_collection()
    for client, more, reason in (
        (s3_world.others["reader"], {}, "SCOPE_MISSING"),
        (s3_world.others["bob"], {}, "COLLECTION_NOT_FOUND"),
        (s3_world.alice, {"size_bytes": 10_000_000}, "TOO_LARGE"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await invited(client, **more)
        assert failure_of(failed.value)[1] == reason


async def test_a_folder_has_no_upload_urls(world: World) -> None:
    """Where documents' bytes are in a folder there is no URL to put them to."""
    await world.alice.create_collection()
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await invited(world.alice)
    assert failure_of(failed.value)[:2] == ("UNIMPLEMENTED", "NOT_IMPLEMENTED")
    await refused(world.alice, f"upload://{'0' * 32}")


async def test_an_upload_outlives_its_process(tmp_path: Path, empty_redis: RedisServer, s3: S3) -> None:
    """An upload whose process was killed goes on in the next one, from the parts that are stored."""
    async with open_peers() as peers:
        listen = f"127.0.0.1:{free_port()}"
        settings = settings_of(tmp_path, empty_redis, peers, listen=listen, **on_s3(s3))
        variables = settings.model_dump(exclude_unset=True, exclude={"channel"})
        async with process(variables) as killed, connect(listen, ALICE) as channel:
            await until_serving(channel)
            await Client(channel).create_collection()
            call: Any = Client(channel).documents.UploadDocument()
            await call.write(begin())
            upload_id = (await call.read()).progress.upload_id
            for start in range(0, 2500, 500):
                await call.write(part(PAGE[start : start + 500]))
            async with asyncio.timeout(10):
                while len(s3.keys()) < 2:
                    await asyncio.sleep(0.02)
            killed.send_signal(signal.SIGKILL)
            await killed.wait()
        async with open_app(settings) as app, serve(app, settings) as address, connect(address, ALICE) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await uploaded(Client(channel), begin(upload_id, 2500))
            assert failure_of(failed.value)[1] == "OFFSET_MISMATCH"
            told = await uploaded(Client(channel), begin(upload_id, 2000), part(PAGE[2000:]))
            assert told[-1].state == READY
            assert [s3.get(key) for key in s3.keys() if "/objects/" in key] == [PAGE]  # noqa: SIM118 - no mapping


def begin(upload_id: str = "", offset: int = 0) -> Any:
    """The first message of an upload."""
    head = documents_pb2.DocumentHead(parent=HANDBOOK, document_id="page")
    started = documents_pb2.UploadDocumentRequest.Begin(document=head, upload_id=upload_id, offset=offset)
    return documents_pb2.UploadDocumentRequest(begin=started)


def part(data: bytes) -> Any:
    """The next bytes of an upload, with their checksum."""
    checked = documents_pb2.UploadDocumentRequest.Part(data=data, crc32c=google_crc32c.value(data))
    return documents_pb2.UploadDocumentRequest(part=checked)


async def uploaded(client: Client, *messages: Any) -> list[Any]:
    """All that is told of an upload."""
    return [each.progress async for each in client.documents.UploadDocument(iter(messages))]
