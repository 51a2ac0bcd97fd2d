"""What survives: a killed process, a Redis that goes away and comes back."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshkit.testing import connect
from ragmesh.ingest.v1 import documents_pb2, jobs_pb2
from tests.ingest_svc.conftest import ALICE, HANDBOOK, Client, open_world, settings_of
from tests.ingest_svc.failures import failure_of
from tests.ingest_svc.peers import open_peers
from tests.redis_server import RedisServer, open_redis_server


def free_port() -> int:
    """A port that was free just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@asynccontextmanager
async def process(settings: dict[str, Any]) -> AsyncIterator[asyncio.subprocess.Process]:
    """The ingest process with the settings, killed at the end if it still runs."""
    variables = {f"RAGMESH_INGEST_{name.upper()}": str(value) for name, value in settings.items()}
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ingest_svc", env={**os.environ, **variables}, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def until_serving(channel: grpc.aio.Channel) -> None:
    """Return when the server says SERVING."""
    stub = health_pb2_grpc.HealthStub(channel)
    async with asyncio.timeout(60):
        while True:
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest())
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(0.1)


async def test_a_killed_process_loses_nothing(tmp_path: Path, empty_redis: RedisServer) -> None:
    """A job whose process is killed in its middle is finished by the next one, each document indexed once."""
    pages = tmp_path / "source"
    pages.mkdir()
    for number in range(12):
        (pages / f"page{number:02}.md").write_text(f"# Page {number}\n\nWords of page {number}.")
    async with open_peers() as peers:
        listen = f"127.0.0.1:{free_port()}"
        settings = settings_of(tmp_path, empty_redis, peers, listen=listen).model_dump(
            exclude_unset=True, exclude={"channel"}
        )
        peers.embedder.behaviour.embed_pause_s = 0.5
        async with process(settings) as first, connect(listen, ALICE) as channel:
            await until_serving(channel)
            client = Client(channel)
            await client.create_collection()
            request = jobs_pb2.StartJobRequest(collection=HANDBOOK, source_uri=pages.as_uri())
            job = (await client.jobs.StartJob(request)).job
            stored = await client.create("Stored before the end.", wait=False, document_id="stored")
            async with asyncio.timeout(60):
                while len(peers.index.writes) < 4:
                    await asyncio.sleep(0.02)
            first.send_signal(signal.SIGKILL)
            await first.wait()
        before = len(peers.index.writes)
        assert before < 12
        peers.embedder.behaviour.embed_pause_s = 0
        async with process(settings) as second, connect(listen, ALICE) as channel:
            await until_serving(channel)
            client = Client(channel)
            async with asyncio.timeout(60):
                while True:
                    job = (await client.jobs.GetJob(jobs_pb2.GetJobRequest(name=job.name))).job
                    found = await client.get(stored.name)
                    ready = found.state == documents_pb2.Document.STATE_READY
                    if job.state == jobs_pb2.Job.STATE_SUCCEEDED and ready:
                        break
                    await asyncio.sleep(0.1)
            second.send_signal(signal.SIGTERM)
            assert await second.wait() == 0
    assert (job.counts.found, job.counts.ready, job.counts.failed, job.counts.chunks) == (12, 12, 0, 12)
    held = peers.index.held["acme", HANDBOOK].documents
    assert len(held) == 13
    assert all(len(chunks) == 1 for chunks in held.values())


async def test_what_waits_for_vectors_survives(tmp_path: Path, empty_redis: RedisServer) -> None:
    """A process killed while documents are found by their words only: the next one brings their vectors, once each."""
    pages = tmp_path / "source"
    pages.mkdir()
    for number in range(8):
        (pages / f"page{number:02}.md").write_text(f"# Page {number}\n\nWords of page {number}.")
    async with open_peers() as peers:
        listen = f"127.0.0.1:{free_port()}"
        settings = settings_of(tmp_path, empty_redis, peers, listen=listen).model_dump(
            exclude_unset=True, exclude={"channel"}
        )
        # A job's documents are found by their words first where they are longer than a batch.
        settings["max_batch_tokens"] = 1
        peers.embedder.behaviour.gate.clear()
        async with process(settings) as first, connect(listen, ALICE) as channel:
            await until_serving(channel)
            client = Client(channel)
            await client.create_collection()
            request = jobs_pb2.StartJobRequest(collection=HANDBOOK, source_uri=pages.as_uri())
            job = (await client.jobs.StartJob(request)).job
            held = peers.index.held["acme", HANDBOOK]
            async with asyncio.timeout(60):
                while len(held.pending) < 5:
                    await asyncio.sleep(0.02)
            first.send_signal(signal.SIGKILL)
            await first.wait()
        peers.embedder.behaviour.gate.set()
        async with process(settings), connect(listen, ALICE) as channel:
            await until_serving(channel)
            async with asyncio.timeout(60):
                while job.state != jobs_pb2.Job.STATE_SUCCEEDED:
                    job = (await Client(channel).jobs.GetJob(jobs_pb2.GetJobRequest(name=job.name))).job
                    await asyncio.sleep(0.1)
    assert (job.counts.ready, job.counts.failed, job.counts.searchable) == (8, 0, 0)
    assert not held.pending
    assert sorted(peers.index.writes.values()) == [1] * 8
    assert not list((tmp_path / "objects").rglob("*.chunks"))


async def test_redis_may_go_away(tmp_path: Path) -> None:
    """Without Redis calls fail as unavailable and health says so; what was stored goes on when it is back."""
    (tmp_path / "redis").mkdir()
    with open_redis_server(tmp_path / "redis") as redis:
        async with open_world(tmp_path, redis, redis_timeout_s=2, retry_backoff_max_s=0.2) as world:
            await world.alice.create_collection()
            world.peers.embedder.behaviour.embed_pause_s = 0.5
            stored = await world.alice.create("Stored before it went away.", wait=False)
            await asyncio.sleep(0.2)
            redis.kill()
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await world.alice.create("Too late.")
            assert failure_of(failed.value)[:2] == ("UNAVAILABLE", "STORE_UNAVAILABLE")
            redis.start()
            async with asyncio.timeout(60):
                while (await world.alice.get(stored.name)).state != documents_pb2.Document.STATE_READY:
                    await asyncio.sleep(0.1)
            assert (await world.alice.create("And on.")).state == documents_pb2.Document.STATE_READY
