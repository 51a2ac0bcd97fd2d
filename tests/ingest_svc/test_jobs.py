"""Jobs over a real channel: a folder taken in, watched, cancelled."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from ragmesh.ingest.v1 import documents_pb2, jobs_pb2
from tests.ingest_svc.conftest import HANDBOOK, World
from tests.ingest_svc.failures import failure_of, reason_of

SUCCEEDED = jobs_pb2.Job.STATE_SUCCEEDED


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with two pages, a picture, hidden files, and a link that leads out of it."""
    folder = tmp_path / "source" / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "one.md").write_text("# One\n\nThe first page.")
    (folder / "deep" / "two.md").write_text("# Two\n\nThe second page.")
    (folder / "picture.md").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(16))
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (folder / ".draft.md").write_text("A draft.")
    (tmp_path / "secret.md").write_text("A secret.")
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    return folder


async def start(world: World, source: Path, **more: Any) -> Any:
    """Start a job over the folder."""
    values = {"collection": HANDBOOK, "source_uri": source.as_uri()} | more
    return (await world.alice.jobs.StartJob(jobs_pb2.StartJobRequest(**values))).job


async def watched(world: World, name: str) -> list[Any]:
    """All that is told of a job until it ends."""
    return [response async for response in world.alice.jobs.WatchJob(jobs_pb2.WatchJobRequest(name=name))]


async def test_a_folder_is_taken_in(world: World, source: Path) -> None:
    """Every file is indexed or fails as data; links that lead out and hidden files are left; counts add up."""
    await world.alice.create_collection()
    told = await watched(world, (await start(world, source)).name)
    job = told[-1].job
    assert job.state == SUCCEEDED
    counts = job.counts
    assert (counts.found, counts.ready, counts.failed, counts.unchanged, counts.chunks) == (3, 2, 1, 0, 2)
    assert [reason_of(failure.error) for failure in job.failures] == ["UNSUPPORTED_FORMAT"]
    assert not told[0].HasField("document")
    assert not told[-1].HasField("document")
    assert any(each.document.state == documents_pb2.Document.STATE_READY for each in told)
    held = world.peers.index.held["acme", HANDBOOK].documents
    assert sorted(chunks[0].text for chunks in held.values()) == ["One\n\nThe first page.", "Two\n\nThe second page."]
    assert {chunks[0].uri for chunks in held.values()} == {
        f"{source.as_uri()}/one.md",
        f"{source.as_uri()}/deep/two.md",
    }


async def test_a_second_job_takes_in_what_changed(world: World, source: Path) -> None:
    """Unchanged files cost nothing, changed ones are replaced, and those that went are deleted where asked for."""
    await world.alice.create_collection()
    include = ["*.md"]
    await watched(world, (await start(world, source, include=include, exclude=["picture*", "link*"])).name)
    (source / "one.md").unlink()
    (source / "deep" / "two.md").write_text("# Two\n\nThe second page, changed.")
    (source / "three.md").write_text("A third.")
    job = await start(world, source, include=include, exclude=["picture*"], delete_missing=True)
    counts = (await watched(world, job.name))[-1].job.counts
    assert (counts.found, counts.ready, counts.deleted, counts.failed) == (2, 2, 1, 0)
    held = world.peers.index.held["acme", HANDBOOK].documents
    assert sorted(chunks[0].text for chunks in held.values()) == ["A third.", "Two\n\nThe second page, changed."]
    counts = (await watched(world, (await start(world, source, exclude=["picture*"])).name))[-1].job.counts
    assert (counts.ready, counts.unchanged) == (0, 2)


async def test_a_lone_file_is_a_source(world: World, source: Path) -> None:
    """A source that names a file is that file."""
    await world.alice.create_collection()
    uri = (source / "deep" / "two.md").as_uri()
    job = (await watched(world, (await start(world, source, source_uri=uri)).name))[-1].job
    assert (job.state, job.counts.found, job.counts.ready) == (SUCCEEDED, 1, 1)
    held = world.peers.index.held["acme", HANDBOOK].documents
    assert [chunks[0].uri for chunks in held.values()] == [uri]


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc",
        "file://{root}/source/../objects",
        "file://{root}/source/docs/%2e%2e/%2e%2e/objects",
        "file://{root}/source/out",
        "file://{root}/source/none",
        "file://{root}/secret.md",
        "file://host{root}/source/docs",
        "s3://bucket/prefix",
        "source/docs",
        "file://[",
        "file:///%00",
    ],
)
async def test_sources_outside_the_roots_are_refused(world: World, source: Path, tmp_path: Path, uri: str) -> None:
    """A source that is not below an allowed root, however it is written, is refused."""
    (tmp_path / "source" / "out").symlink_to(tmp_path / "objects")
    await world.alice.create_collection()
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await start(world, source, source_uri=uri.format(root=tmp_path))
    assert failure_of(failed.value)[:2] == ("INVALID_ARGUMENT", "SOURCE_NOT_READABLE")


async def test_a_request_starts_one_job(world: World, source: Path) -> None:
    """The same request_id gives the same job; for another request it is refused."""
    await world.alice.create_collection()
    first = await start(world, source, request_id="r1")
    assert (await start(world, source, request_id="r1")).name == first.name
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await start(world, source, request_id="r1", delete_missing=True)
    assert failure_of(failed.value)[1] == "REQUEST_ID_REUSED"
    await start(world, source)
    listed = await world.alice.jobs.ListJobs(jobs_pb2.ListJobsRequest(page_size=1))
    assert listed.jobs[0].name != first.name
    rest = await world.alice.jobs.ListJobs(jobs_pb2.ListJobsRequest(page_token=listed.next_page_token))
    assert [job.name for job in rest.jobs] == [first.name]
    theirs = await world.others["bob"].jobs.ListJobs(jobs_pb2.ListJobsRequest())
    assert not theirs.jobs


async def test_a_cancelled_job_stops(world: World, source: Path) -> None:
    """A job cancelled at work ends as cancelled; what was ready stays; cancelling again is refused."""
    await world.alice.create_collection()
    for number in range(20):
        (source / f"page{number:02}.md").write_text(f"Page {number}.")
    world.peers.embedder.behaviour.embed_pause_s = 0.1
    job = await start(world, source)
    async with asyncio.timeout(10):
        while len(world.peers.index.writes) < 2:
            await asyncio.sleep(0.02)
    request = jobs_pb2.CancelJobRequest(name=job.name)
    cancelled = await world.alice.jobs.CancelJob(request)
    assert cancelled.job.state == jobs_pb2.Job.STATE_CANCELLED
    await asyncio.sleep(0.5)
    assert 2 <= len(world.peers.index.writes) < 10
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await world.alice.jobs.CancelJob(request)
    assert failure_of(failed.value)[:2] == ("FAILED_PRECONDITION", "JOB_ENDED")


async def test_a_tenant_has_a_bound_of_open_jobs(world: World, source: Path) -> None:
    """One job more than a tenant may have is refused until another has ended."""
    await world.alice.create_collection()
    world.peers.embedder.behaviour.away = True
    jobs = [await start(world, source) for _ in range(world.settings.max_open_jobs)]
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await start(world, source)
    assert failure_of(failed.value)[:2] == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    await world.alice.jobs.CancelJob(jobs_pb2.CancelJobRequest(name=jobs[-1].name))
    await start(world, source)


@pytest.mark.parametrize("method", ["GetJob", "CancelJob"])
async def test_unknown_jobs_are_not_found(world: World, source: Path, method: str) -> None:
    """A job of another tenant, or none, is not found."""
    await world.alice.create_collection()
    job = await start(world, source)
    for client, name in ((world.others["bob"], job.name), (world.alice, "jobs/none")):
        request = getattr(jobs_pb2, f"{method}Request")(name=name)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await getattr(client.jobs, method)(request)
        assert failure_of(failed.value)[:2] == ("NOT_FOUND", "JOB_NOT_FOUND")
