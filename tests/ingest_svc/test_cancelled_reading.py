"""A job that is cancelled while its source keeps it waiting."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ragmesh.ingest.v1 import jobs_pb2
from tests.ingest_svc.conftest import HANDBOOK, open_world
from tests.ingest_svc.object_stores import CREDENTIALS
from tests.redis_server import RedisServer

KEY = "docs/slow.md"
LISTING = (
    "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>docs/slow.md</Key><Size>100</Size>"
    '<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"1"</ETag></Contents></ListBucketResult>'
)


@dataclass
class StalledS3:
    """An S3 that lists one object and never sends the whole of it."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests."""
        while head := (await reader.readline()).decode():
            while (await reader.readline()).strip():
                pass
            if head.startswith("HEAD"):
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            elif "list-type" in head:
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(LISTING)}\r\n\r\n{LISTING}".encode())
            else:
                dated = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nETag: 1\r\n"
                writer.write(f"HTTP/1.1 200 OK\r\n{dated}Content-Length: 100\r\n\r\nA".encode())
                self.asked.set()
                await reader.read()
                self.left.set()
            await writer.drain()
        writer.close()


@asynccontextmanager
async def open_stalled_s3() -> AsyncIterator[tuple[StalledS3, str]]:
    """The S3 and its URL."""
    s3 = StalledS3()
    async with await asyncio.start_server(s3.answer, "127.0.0.1", 0) as server:
        yield s3, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_cancelled_job_reads_no_further(
    tmp_path: Path, empty_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelling ends the reading of an object that does not come, and leaves nothing of it."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    async with open_stalled_s3() as (s3, url):
        more = {"source_roots": "s3://slow-bucket/docs", "s3_endpoint_url": url}
        async with open_world(tmp_path, empty_redis, **more) as world, asyncio.timeout(15):
            await world.alice.create_collection()
            request = jobs_pb2.StartJobRequest(collection=HANDBOOK, source_uri="s3://slow-bucket/docs")
            job = (await world.alice.jobs.StartJob(request)).job
            await s3.asked.wait()
            await world.alice.jobs.CancelJob(jobs_pb2.CancelJobRequest(name=job.name))
            await s3.left.wait()
            while list((tmp_path / "objects").rglob("*/acme/*")):
                await asyncio.sleep(0.02)
