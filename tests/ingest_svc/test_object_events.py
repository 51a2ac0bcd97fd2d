"""Events of an object store: read in every form they come in, and turned into jobs."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from ingest_svc.object_events import MAX_RECORDS, read_events
from meshkit.errors import InvalidArgument
from ragmesh.ingest.v1 import jobs_pb2
from tests.ingest_svc.conftest import HANDBOOK, World, open_world
from tests.ingest_svc.failures import failure_of
from tests.ingest_svc.object_stores import BUCKET, S3
from tests.redis_server import RedisServer

KEY = "handbook/deep/a page é+%20.md"


def record(name: str, key: str = KEY, bucket: str = BUCKET, **more: Any) -> dict[str, Any]:
    """A record as S3 writes it."""
    where = {"bucket": {"name": bucket}, "object": {"key": quote_plus(key, safe="/"), "sequencer": "0055AED6DCD9"}}
    return {"eventVersion": "2.1", "eventName": name, "s3": where, **more}


def bridged(kind: str, key: str) -> dict[str, Any]:
    """An event as Amazon's EventBridge writes it."""
    return {"detail-type": kind, "source": "aws.s3", "detail": {"bucket": {"name": BUCKET}, "object": {"key": key}}}


URI = f"s3://{BUCKET}/{KEY}"
FORMS = [
    ({"Records": [record("ObjectCreated:Put")]}, [URI]),
    ({"EventName": "s3:ObjectCreated:Put", "Key": "x", "Records": [record("s3:ObjectRemoved:Delete")]}, [URI]),
    (
        {"Type": "Notification", "Message": json.dumps({"Records": [record("ObjectRemoved:DeleteMarkerCreated")]})},
        [URI],
    ),
    (bridged("Object Created", KEY), [URI]),
    (bridged("Object Deleted", KEY), [URI]),
    (bridged("Object Tags Added", KEY), []),
    ({"Records": [record("ObjectCreated:Put", key="handbook/folder/"), record("ObjectTagging:Put")]}, []),
    ({"Records": []}, []),
    ({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET}, []),
]
BAD = [
    ({}, "notification"),
    ({"Records": {}}, "notification"),
    ({"Records": [None] * (MAX_RECORDS + 1)}, "notification"),
    ({"Records": [1]}, "notification.Records[0]"),
    ({"Records": [record("ObjectCreated:Put"), {"eventName": "ObjectCreated:Put"}]}, "notification.Records[1].s3"),
    ({"Records": [{"eventName": "x", "s3": {"bucket": {}}}]}, "notification.Records[0].s3.bucket.name"),
    ({"Message": "no JSON"}, "notification.Message"),
    ({"Message": "[]"}, "notification.Message"),
    ({"detail": {}}, "notification.detail"),
]


@pytest.mark.parametrize(("notification", "uris"), FORMS)
def test_events_are_read_in_every_form(notification: dict[str, Any], uris: list[str]) -> None:
    """Of every form the objects whose content changed are read, by their keys as they are."""
    assert [event.uri for event in read_events(notification)] == uris


@pytest.mark.parametrize(("notification", "field"), BAD)
def test_what_is_no_notification_is_refused(notification: dict[str, Any], field: str) -> None:
    """What is no notification is refused by the field that is wrong."""
    with pytest.raises(InvalidArgument) as failed:
        read_events(notification)
    assert (failed.value.reason, failed.value.metadata["field"]) == ("INVALID_FIELD", field)


@pytest.fixture
async def event_world(tmp_path: Path, empty_redis: RedisServer, s3: S3) -> AsyncIterator[World]:
    """Ingestion that may read two prefixes of the bucket."""
    roots = f"s3://{BUCKET}/handbook:s3://{BUCKET}/wiki"
    more = {"source_roots": roots, "s3_endpoint_url": s3.url, "object_store_timeout_s": 2.0}
    async with open_world(tmp_path, empty_redis, **more) as opened:
        await opened.alice.create_collection()
        yield opened


async def receive(world: World, notification: dict[str, Any], collection: str = HANDBOOK) -> list[Any]:
    """Hand a notification over, and return the jobs as they ended."""
    request = jobs_pb2.ReceiveObjectEventsRequest(collection=collection, notification=ParseDict(notification, Struct()))
    started = (await world.alice.jobs.ReceiveObjectEvents(request)).jobs
    watched = [world.alice.jobs.WatchJob(jobs_pb2.WatchJobRequest(name=job.name)) for job in started]
    return [[each async for each in watch][-1].job for watch in watched]


def texts(world: World) -> dict[str, str]:
    """The text of each document in the index by where it came from."""
    held = world.peers.index.held["acme", HANDBOOK].documents
    return {chunks[0].uri: chunks[0].text for chunks in held.values()}


async def test_events_keep_a_collection_as_the_bucket_is(event_world: World, s3: S3) -> None:
    """What is created is taken in, what is overwritten replaced, what is removed deleted; nothing else is touched."""
    s3.put(KEY, b"The first text.")
    s3.put("handbook/[other]*.md", b"Never told of.")
    (job,) = await receive(event_world, {"Records": [record("ObjectCreated:Put", sequencer="1")]})
    assert (job.state, job.source_uri) == (jobs_pb2.Job.STATE_SUCCEEDED, f"s3://{BUCKET}/handbook")
    assert (job.counts.found, job.counts.ready) == (1, 1)
    assert texts(event_world) == {URI: "The first text."}
    s3.put(KEY, b"The second text.")
    await receive(event_world, {"Records": [record("ObjectCreated:Put", sequencer="2")]})
    assert texts(event_world) == {URI: "The second text."}
    s3.remove(KEY)
    (job,) = await receive(event_world, {"Records": [record("ObjectRemoved:Delete", sequencer="3")]})
    assert (job.counts.found, job.counts.deleted) == (0, 1)
    assert texts(event_world) == {}


async def test_events_may_come_twice_and_in_any_order(event_world: World, s3: S3) -> None:
    """The same event gives the same job; one that comes late goes by what is there by then."""
    s3.put(KEY, b"Its text.")
    created = {"Records": [record("ObjectCreated:Put", sequencer="2")]}
    (first,) = await receive(event_world, {"Records": [record("ObjectRemoved:Delete", sequencer="1")]})
    assert first.counts.ready == 1
    (second,) = await receive(event_world, created)
    assert second.counts.unchanged == 1
    (again,) = await receive(event_world, {"Type": "Notification", "Message": json.dumps(created)})
    assert again.name == second.name
    s3.remove(KEY)
    (late,) = await receive(event_world, {"Records": [record("ObjectCreated:Put", sequencer="0")]})
    assert late.counts.deleted == 1
    assert texts(event_world) == {}


async def test_one_job_is_started_for_each_place(event_world: World, s3: S3) -> None:
    """Events of two allowed places start two jobs; those of neither start none."""
    s3.put(KEY, b"Its text.")
    s3.put("wiki/a.md", b"Its text in the wiki.")
    records = [record("ObjectCreated:Put"), record("ObjectCreated:Copy", key="wiki/a.md"), record("ObjectAcl:Put")]
    jobs = await receive(event_world, {"Records": records})
    assert [(job.source_uri, job.counts.ready) for job in jobs] == [
        (f"s3://{BUCKET}/handbook", 1),
        (f"s3://{BUCKET}/wiki", 1),
    ]
    assert await receive(event_world, {"Event": "s3:TestEvent"}) == []


async def test_events_of_other_places_are_refused(event_world: World) -> None:
    """A notification with an object outside the allowed places is refused whole."""
    outside = [(BUCKET, "other/a.md"), (BUCKET, "handbook/../other/a.md"), (BUCKET, "handbook2/a.md"), ("others", KEY)]
    for bucket, key in outside:
        records = [record("ObjectCreated:Put"), record("ObjectCreated:Put", key=key, bucket=bucket)]
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await receive(event_world, {"Records": records})
        assert failure_of(failed.value)[:2] == ("INVALID_ARGUMENT", "SOURCE_NOT_READABLE")
    assert not (await event_world.alice.jobs.ListJobs(jobs_pb2.ListJobsRequest())).jobs


async def test_an_upload_of_the_same_uri_is_left_alone(event_world: World) -> None:
    """A document that a caller gave, though under the object's URI, is not deleted with the object."""
    document = await event_world.alice.create("Given by hand.", uri=URI)
    await receive(event_world, {"Records": [record("ObjectRemoved:Delete")]})
    assert (await event_world.alice.get(document.name)).name == document.name


async def test_a_collection_must_be_there(event_world: World) -> None:
    """Events for a collection that is not there are refused, the store's test too."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await receive(event_world, {"Event": "s3:TestEvent"}, collection="collections/none")
    assert failure_of(failed.value)[1] == "COLLECTION_NOT_FOUND"
