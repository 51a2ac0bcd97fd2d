"""Ingestion on a local Ray of two workers, as users start it, against a whole mesh."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import Parse
from google.rpc import error_details_pb2

from deploy.local.mesh import Mesh
from ragmesh.ingest.v1 import documents_pb2, jobs_pb2
from ragmesh.retriever.v1 import retriever_pb2, retriever_pb2_grpc
from ragmesh_client import Client
from tests.mesh.conftest import client

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]
PAGES = 16
FILES = {
    "guide.html": b"<html><head><title>Guide</title></head><body><h1>Guide</h1><p>Two hang a lamp.</p></body></html>",
    "prices.csv": b"lamp,price\nA1,20\nB2,35\n",
    "lamps.json": b'{"lamps": [{"name": "A1", "watts": 7}]}',
    "lamp.py": b'def light(lamp):\n    """Switch a lamp on."""\n    lamp.on = True\n',
}
BAD = {"broken.pdf": ("UNREADABLE_DOCUMENT", b"%PDF-1.4 broken"), "empty.txt": ("NO_TEXT", b" \n")}


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder for Ray, whose sockets' paths must be short."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder)


def make_source(folder: Path) -> None:
    """Files of many kinds, two of which cannot be read."""
    folder.mkdir()
    for name, data in FILES.items() | {(name, data) for name, (_, data) in BAD.items()}:
        (folder / name).write_bytes(data)
    for page in range(PAGES):
        words = " ".join(f"Sentence {n} of page {page} tells of lamps." for n in range(100))
        (folder / f"page-{page}.md").write_text(f"# Page {page}\n\n{words}\n\n## Last\n\nLamp {page} is off.\n")


@asynccontextmanager
async def ingesting(mesh: Mesh, ray: Path, *arguments: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """`ragmesh ingest --ray local` with its progress on stdout."""
    environment = {
        **os.environ,
        "RAGMESH_TARGET": mesh.edge,
        "RAGMESH_TOKEN": mesh.token(),
        "RAY_TMPDIR": str(ray),
        "TMPDIR": str(ray),
        "HOME": str(ray),
    }
    command = str(Path(sys.executable).with_name("ragmesh"))
    cluster = ("--ray", "local", "--ray-workers", "1", "--embedder", mesh.addresses["embedder"])
    process = await asyncio.create_subprocess_exec(
        *(command, "ingest", *cluster, "--collection", "lamps", "--json", *arguments),
        env=environment,
        stdout=PIPE,
        limit=2**24,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def lines(process: asyncio.subprocess.Process) -> AsyncGenerator[Any]:
    """What the command tells, until it ends."""
    assert process.stdout is not None
    async for line in process.stdout:
        yield Parse(line, jobs_pb2.WatchJobResponse())


async def test_a_folder_on_ray_is_the_folder_uploaded(mesh: Mesh, tmp_path: Path, short_folder: Path) -> None:
    """Though all workers are killed in mid-run, each document is there once and as uploads make it; then unchanged."""
    source = tmp_path / "source"
    make_source(source)
    async with ingesting(mesh, short_folder, source.as_uri()) as process:
        job = jobs_pb2.Job()
        killed = 0
        async for response in lines(process):
            job = response.job
            if job.counts.ready and not killed:
                killed = await kill_workers(mesh, process.pid)
        assert (killed > 0, await process.wait()) == (True, 1)
    counts = job.counts
    assert (counts.found, counts.ready, counts.unchanged) == (PAGES + len(FILES) + len(BAD), PAGES + len(FILES), 0)
    assert {Path(failure.uri).name: reason(failure.error) for failure in job.failures} == {
        name: reason for name, (reason, _) in BAD.items()
    }
    async with client(mesh) as caller:
        await compare(caller, source)
        (source / "page-0.md").unlink()
        async with ingesting(mesh, short_folder, "--delete-missing", source.as_uri()) as process:
            async for response in lines(process):
                job = response.job
        assert (job.counts.ready, job.counts.unchanged, job.counts.deleted) == (0, PAGES + len(FILES) - 1, 1)
        await caller.delete_collection("lamps", force=True)


async def kill_workers(mesh: Mesh, pid: int) -> int:
    """Kill all of Ray's actors below the process and say how many, while some documents wait for the embedder."""
    embedder = mesh.processes["embedder"].pid
    os.kill(embedder, signal.SIGSTOP)
    try:
        async with client(mesh) as caller:
            taken = [document async for document in caller.list_documents("lamps")]
        assert len(taken) < PAGES + len(FILES)
        actors = [child for child in below(pid) if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"ray::Map")]
        for actor in actors:
            os.kill(actor, signal.SIGKILL)
        return len(actors)
    finally:
        os.kill(embedder, signal.SIGCONT)


def below(pid: int) -> set[int]:
    """The processes that the process started, and those that they started."""
    started = [
        int(child)
        for children in Path(f"/proc/{pid}/task").glob("*/children")
        for child in children.read_text().split()
    ]
    return set(started).union(*map(below, started))


async def compare(caller: Client, source: Path) -> None:
    """Upload the folder's files under the same addresses and compare all that is kept of them."""
    await caller.create_collection("lamps-uploaded")
    for file in sorted(source.iterdir()):
        if file.name not in BAD:
            steps = [step async for step in caller.upload(file, "lamps-uploaded", uri=file.as_uri())]
            assert steps[-1].state == documents_pb2.Document.STATE_READY
    imported = {document.uri: document async for document in caller.list_documents("lamps")}
    uploaded = {document.uri: document async for document in caller.list_documents("lamps-uploaded")}
    assert {uri: record(each) for uri, each in imported.items()} == {
        uri: record(each) for uri, each in uploaded.items()
    }
    stages = [timing.stage for timing in imported[(source / "lamp.py").as_uri()].timings.timings]
    assert stages == ["parse", "chunk", "embed", "index"]
    for uri, document in imported.items():
        chunks = await chunks_of(caller, document.name)
        assert chunks
        assert chunks == await chunks_of(caller, uploaded[uri].name)
    dense = retriever_pb2.SEARCH_MODE_DENSE
    found = [
        [(hit.chunk.text, round(hit.score, 3)) for hit in (await caller.search("Switch it on", into, mode=dense)).hits]
        for into in ("lamps", "lamps-uploaded")
    ]
    assert found[0] == found[1]
    await caller.delete_collection("lamps-uploaded", force=True)


def record(document: documents_pb2.Document) -> bytes:
    """What a document's record says of its content and of what was made of it."""
    kept = documents_pb2.Document()
    kept.CopyFrom(document)
    for field in ("name", "timings", "create_time", "update_time", "searchable_time", "source_uri"):
        kept.ClearField(field)
    return kept.SerializeToString(deterministic=True)


async def chunks_of(caller: Client, document: str) -> list[bytes]:
    """A document's chunks, without their names."""
    stub = retriever_pb2_grpc.RetrieverServiceStub(caller.channel)
    request = retriever_pb2.ListChunksRequest(parent=document, page_size=100)
    listed = await caller.call(stub.ListChunks, request)
    for chunk in listed.chunks:
        chunk.ClearField("name")
        chunk.ClearField("document")
    return [chunk.SerializeToString(deterministic=True) for chunk in listed.chunks]


def reason(error: Any) -> str:
    """The published reason in a status."""
    info = error_details_pb2.ErrorInfo()
    assert error.details[0].Unpack(info)
    return info.reason
