"""Jobs over an object store: an S3 served by moto, read through obstore."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ingest_svc.jobs import Entry
from ingest_svc.obstore_source import BucketSources
from ingest_svc.obstore_store import StoreOptions, open_store
from ingest_svc.places import Place, parse_place
from meshkit.errors import MeshError
from ragmesh.ingest.v1 import jobs_pb2
from tests.ingest_svc.conftest import HANDBOOK, World, open_world
from tests.ingest_svc.failures import failure_of, reason_of
from tests.ingest_svc.object_stores import BUCKET, S3
from tests.redis_server import RedisServer

SUCCEEDED = jobs_pb2.Job.STATE_SUCCEEDED
ROOT = f"s3://{BUCKET}/handbook"
NOT_ALLOWED = [
    "s3://team-docs",
    "s3://team-docs/hand",
    "s3://team-docs/handbook2",
    "s3://team-docs/handbook/../other",
    "s3://team-docs/handbook/%2e%2e/other",
    "s3://team-docs/handbook%2f..%2fother",
    "s3://team-docs/handbook//other",
    "s3://team-docs/handbook/none",
    "s3://team-docs/handbook/one.md/",
    "s3://other-bucket/handbook",
    "S3://team-docs/handbook",
    "s3://team-docs:80/handbook",
    "s3://user@team-docs/handbook",
    "gs://team-docs/handbook",
    "https://team-docs.s3.amazonaws.com/handbook",
]


@pytest.fixture
async def bucket_world(tmp_path: Path, empty_redis: RedisServer, s3: S3) -> AsyncIterator[World]:
    """Ingestion that may read one prefix of the bucket."""
    more: dict[str, Any] = {
        "source_roots": f"{tmp_path / 'source'}:{ROOT}",
        "s3_endpoint_url": s3.url,
        "object_store_timeout_s": 2.0,
        "max_document_bytes": 100_000,
    }
    async with open_world(tmp_path, empty_redis, **more) as opened:
        yield opened


async def start(world: World, uri: str = ROOT, **more: Any) -> Any:
    """Start a job."""
    request = jobs_pb2.StartJobRequest(collection=HANDBOOK, source_uri=uri, **more)
    return (await world.alice.jobs.StartJob(request)).job


async def ended(world: World, uri: str = ROOT, **more: Any) -> Any:
    """Run a job to its end."""
    request = jobs_pb2.WatchJobRequest(name=(await start(world, uri, **more)).name)
    return [each async for each in world.alice.jobs.WatchJob(request)][-1].job


def uris(world: World) -> set[str]:
    """Where the documents in the index came from."""
    return {chunks[0].uri for chunks in world.peers.index.held["acme", HANDBOOK].documents.values()}


async def test_a_prefix_is_taken_in(bucket_world: World, s3: S3) -> None:
    """Every object below the prefix is indexed, whatever its key, and none beside it; what is gone can be deleted."""
    await bucket_world.alice.create_collection()
    keys = ["handbook/one.md", "handbook/deep/two é+%20 #?.md", "handbook/skip/three.md"]
    for key in [*keys, "handbook2/no.md", "handbook/empty/", "other/no.md"]:
        s3.put(key, b"" if key.endswith("/") else f"Words of {key}.".encode())
    job = await ended(bucket_world, exclude=["skip/*"])
    assert (job.state, job.counts.found, job.counts.ready) == (SUCCEEDED, 2, 2)
    assert uris(bucket_world) == {f"s3://{BUCKET}/{key}" for key in keys[:2]}
    s3.remove(keys[1])
    counts = (await ended(bucket_world, delete_missing=True)).counts
    assert (counts.found, counts.ready, counts.unchanged, counts.deleted) == (2, 1, 1, 1)
    assert uris(bucket_world) == {f"s3://{BUCKET}/{key}" for key in (keys[0], keys[2])}


async def test_what_has_not_changed_is_not_read(bucket_world: World, s3: S3, caplog: pytest.LogCaptureFixture) -> None:
    """An object whose version is indexed costs no more than its listing, unless it is to be cut in another way."""
    await bucket_world.alice.create_collection()

    def reads() -> int:
        return sum(f"GET /{BUCKET}/handbook/one.md" in message for message in caplog.messages)

    s3.put("handbook/one.md", b"The first page.")
    counts = [(await ended(bucket_world)).counts for _ in range(2)]
    assert [(each.ready, each.unchanged, each.bytes) for each in counts] == [(1, 0, 15), (0, 1, 15)]
    assert reads() == 1
    assert (
        await ended(bucket_world, chunking={"strategy": "recursive", "parameters": {"max_tokens": 64}})
    ).counts.ready
    assert reads() == 2


async def test_an_object_is_a_source(bucket_world: World, s3: S3) -> None:
    """A source that names an object is that object, under the same URI as in a job over its prefix."""
    await bucket_world.alice.create_collection()
    s3.put("handbook/one.md", b"The first page.")
    assert (await ended(bucket_world, f"{ROOT}/one.md")).counts.ready == 1
    assert (await ended(bucket_world)).counts.unchanged == 1


async def test_an_object_above_the_limit_is_never_read(bucket_world: World, s3: S3) -> None:
    """By its listed size an object is refused before its bytes are asked for, as data; the others are taken in."""
    await bucket_world.alice.create_collection()
    s3.put("handbook/large.md", b"x" * 200_000)
    s3.put("handbook/small.md", b"A small page.")
    job = await ended(bucket_world)
    assert (job.state, job.counts.ready, job.counts.failed) == (SUCCEEDED, 1, 1)
    assert [(each.uri, reason_of(each.error)) for each in job.failures] == [(f"{ROOT}/large.md", "TOO_LARGE")]


async def test_a_store_away_is_waited_for(bucket_world: World, s3: S3) -> None:
    """While the store is away a job cannot be started; one that was started waits, and goes on when it is back."""
    await bucket_world.alice.create_collection()
    for number in range(6):
        s3.put(f"handbook/{number}.md", f"Page {number}.".encode())
    bucket_world.peers.embedder.behaviour.away = True
    job = await start(bucket_world)
    s3.stop()
    bucket_world.peers.embedder.behaviour.away = False
    try:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await start(bucket_world)
        assert failure_of(failed.value)[:2] == ("UNAVAILABLE", "STORE_UNAVAILABLE")
    finally:
        s3.start()
    async with asyncio.timeout(20):
        told = [each async for each in bucket_world.alice.jobs.WatchJob(jobs_pb2.WatchJobRequest(name=job.name))]
    assert (told[-1].job.state, told[-1].job.counts.ready) == (SUCCEEDED, 6)


@pytest.fixture
def sources(s3: S3) -> BucketSources:
    """The bucket's handbook, of at most three files."""
    return BucketSources([parse_place(ROOT)], StoreOptions(2.0, s3.url), max_files=3)


async def test_places_not_allowed_are_refused(sources: BucketSources, s3: S3) -> None:
    """A source that is not below an allowed place, or not there, has one answer, however it is written."""
    for key in ("handbook/one.md", "handbook2/one.md", "other/one.md"):
        s3.put(key, b"A page.")
    for uri in NOT_ALLOWED:
        with pytest.raises(MeshError) as failed:
            await sources.open("acme", uri)
        assert (failed.value.reason, failed.value.metadata) == ("SOURCE_NOT_READABLE", {"uri": uri})


async def test_an_object_gone_since_it_was_listed_is_not_readable(sources: BucketSources, s3: S3) -> None:
    """What was listed and is gone then fails by itself, with the reason."""
    s3.put("handbook/one.md", b"A page.")
    source = await sources.open("acme", ROOT)
    (entry,) = [entry async for entry in source.entries()]
    assert (entry.path, entry.uri, entry.size) == ("one.md", f"{ROOT}/one.md", 7)
    s3.remove("handbook/one.md")
    with pytest.raises(MeshError) as failed:
        _ = [part async for part in source.read(entry, 10)]
    assert failed.value.reason == "SOURCE_NOT_READABLE"
    assert await source.find("one.md") is None


async def test_a_version_moves_with_the_content(sources: BucketSources, s3: S3) -> None:
    """An object's version is another where its bytes are, and the same where they are."""
    versions = []
    for data in (b"One.", b"One.", b"Two."):
        s3.put("handbook/one.md", data)
        source = await sources.open("acme", ROOT)
        versions += [entry.version async for entry in source.entries()]
    assert versions[0] == versions[1] != versions[2]


async def test_a_listing_is_bounded(sources: BucketSources, s3: S3) -> None:
    """More files than a job may have are refused."""
    for number in range(4):
        s3.put(f"handbook/{number}.md", b"A page.")
    source = await sources.open("acme", ROOT)
    with pytest.raises(MeshError) as failed:
        _ = [entry async for entry in source.entries()]
    assert (failed.value.reason, failed.value.metadata) == ("TOO_LARGE", {"limit_files": "3"})


async def test_large_objects_come_in_parts(sources: BucketSources, s3: S3) -> None:
    """An object is read in parts of about the size asked for."""
    s3.put("handbook/large.bin", bytes(3_000_000))
    source = await sources.open("acme", f"{ROOT}/large.bin")
    (entry,) = [entry async for entry in source.entries()]
    sizes = [len(part) async for part in source.read(entry, 1_000_000)]
    assert sum(sizes) == 3_000_000
    assert max(sizes) < 2_000_000


async def test_keys_that_cannot_be_read_are_told(sources: BucketSources, s3: S3) -> None:
    """A key with an empty part, which the library cannot name, fails the listing with the reason."""
    s3.put("handbook/a//b.md", b"A page.")
    with pytest.raises(MeshError) as failed:
        await sources.open("acme", ROOT)
    assert failed.value.reason == "SOURCE_NOT_READABLE"
    assert "parts" in failed.value.message


async def test_a_bucket_that_is_not_there_is_not_readable(s3: S3) -> None:
    """An allowed place in a bucket that does not exist is not readable."""
    sources = BucketSources([Place("s3", "no-bucket")], StoreOptions(2.0, s3.url), max_files=3)
    for uri in ("s3://no-bucket", "s3://no-bucket/docs"):
        with pytest.raises(MeshError) as failed:
            await sources.open("acme", uri)
        assert failed.value.reason == "SOURCE_NOT_READABLE"


def test_every_kind_of_store_is_opened_by_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3, Google's and Azure's stores are made from a URL and the environment; what is missing is said."""
    options = StoreOptions(1.0)
    with pytest.raises(ValueError, match=r"az://docs/a: .*Account"):
        open_store(parse_place("az://docs/a"), options)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    kinds = [type(open_store(parse_place(f"{scheme}://docs/a"), options)).__name__ for scheme in ("s3", "gs", "az")]
    assert kinds == ["S3Store", "GCSStore", "AzureStore"]


def test_an_entry_of_a_prefix_is_named_by_its_path() -> None:
    """Keys and paths are each other's: with a prefix and without."""
    for place in (parse_place("s3://docs/a/b/"), parse_place("s3://docs")):
        entry = Entry("c/d.md", f"{place.url}/c/d.md", 1, "")
        assert place.path(place.key(entry.path)) == entry.path
        assert parse_place(entry.uri).prefix == place.key(entry.path)
