"""What an object store says of its objects, as jobs: S3's event notifications, bare or wrapped by Amazon's couriers."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ingest_svc.catalog import Catalog, Request
from ingest_svc.job_starting import JobDesk, JobOrder
from ingest_svc.jobs import Job, not_readable
from ingest_svc.places import Place, parse_place
from meshkit.errors import invalid

MAX_RECORDS = 1000
# Others are of what an object is called or who may read it.
_OF_CONTENT = ("ObjectCreated:", "ObjectRemoved:", "LifecycleExpiration:")
_BRIDGED = {"Object Created": "ObjectCreated:", "Object Deleted": "ObjectRemoved:"}
_FIELD = "notification"


class _Named(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str


class _Keyed(BaseModel):
    model_config = ConfigDict(frozen=True)

    key: str


class _Where(BaseModel):
    model_config = ConfigDict(frozen=True)

    bucket: _Named
    object: _Keyed


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)

    event: str = Field(alias="eventName")
    s3: _Where


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """An object of which the content has changed, by its URI, and a digest that only the same event has again."""

    uri: str
    digest: str


class ObjectEvents:
    """Starts the jobs that events call for; lives as long as its process, nothing to close."""

    def __init__(self, catalog: Catalog, desk: JobDesk, allowed: Sequence[Place]) -> None:
        self._catalog = catalog
        self._desk = desk
        self._allowed = allowed

    async def receive(
        self, tenant: str, subject: str, collection: str, notification: Mapping[str, Any]
    ) -> Sequence[Job]:
        """The jobs that look at the objects concerned, one for each allowed place; the same ones for the same events.

        They go by what is there when they look, so events may come late, twice and in any order. Raises
        COLLECTION_NOT_FOUND, INVALID_FIELD, SOURCE_NOT_READABLE for an object outside the allowed places, OVERLOADED.
        """
        await self._catalog.get_collection(tenant, collection)
        by_place: defaultdict[Place, list[ObjectEvent]] = defaultdict(list)
        for event in read_events(notification):
            by_place[self._place(event.uri)].append(event)
        return [
            await self._desk.start(tenant, subject, _order(collection, place, events), _request(collection, events))
            for place, events in by_place.items()
        ]

    def _place(self, uri: str) -> Place:
        try:
            place = parse_place(uri)
        except ValueError as error:
            raise not_readable(uri) from error
        for root in self._allowed:
            if root.contains(place):
                return root
        raise not_readable(uri)


def read_events(notification: Mapping[str, Any]) -> list[ObjectEvent]:
    """The events of objects created or removed, in their order; raises INVALID_FIELD for what is no notification."""
    body = _unwrapped(notification)
    if "detail" in body:
        return _bridged(body)
    if body.get("Event") == "s3:TestEvent":
        return []
    records = body.get("Records")
    if not isinstance(records, list) or len(records) > MAX_RECORDS:
        raise invalid(_FIELD, f"has no list of at most {MAX_RECORDS} Records")
    return [event for number, record in enumerate(records) for event in _events(record, f"{_FIELD}.Records[{number}]")]


def _unwrapped(notification: Mapping[str, Any]) -> Mapping[str, Any]:
    """What Amazon's SNS carries as text in `Message`, or the notification itself."""
    message = notification.get("Message")
    if not isinstance(message, str):
        return notification
    try:
        body = json.loads(message)
    except ValueError as error:
        raise invalid(f"{_FIELD}.Message", "is no JSON") from error
    if not isinstance(body, dict):
        raise invalid(f"{_FIELD}.Message", "is no notification")
    return body


def _events(record: Any, field: str) -> list[ObjectEvent]:
    try:
        read = _Record.model_validate(record)
        # S3 writes keys as forms have them.
        key = unquote_plus(read.s3.object.key, errors="strict")
    except ValidationError as error:
        place = ".".join(str(step) for step in error.errors()[0]["loc"])
        raise invalid(f"{field}.{place}" if place else field, "is missing or no text") from error
    except UnicodeDecodeError as error:
        raise invalid(f"{field}.s3.object.key", "is no UTF-8") from error
    return _of_content(read.event.removeprefix("s3:"), read.s3.bucket.name, key, record)


def _bridged(body: Mapping[str, Any]) -> list[ObjectEvent]:
    """The event that Amazon's EventBridge carries, with the key as it is."""
    try:
        where = _Where.model_validate(body["detail"])
    except ValidationError as error:
        raise invalid(f"{_FIELD}.detail", "names no bucket and object") from error
    name = _BRIDGED.get(str(body.get("detail-type")), "")
    return _of_content(name, where.bucket.name, where.object.key, body["detail"])


def _of_content(name: str, bucket: str, key: str, record: Any) -> list[ObjectEvent]:
    # A key with a slash behind is a folder, as some tools mark it.
    if not name.startswith(_OF_CONTENT) or key.endswith("/"):
        return []
    digest = hashlib.sha256(json.dumps([name, record], sort_keys=True).encode()).hexdigest()
    return [ObjectEvent(f"s3://{bucket}/{key}", digest)]


def _order(collection: str, place: Place, events: Sequence[ObjectEvent]) -> JobOrder:
    paths = dict.fromkeys(event.uri.removeprefix(f"{place.url}/") for event in events)
    return JobOrder(collection, place.url, paths=tuple(paths))


def _request(collection: str, events: Sequence[ObjectEvent]) -> Request:
    digest = hashlib.sha256("".join([collection, *(event.digest for event in events)]).encode()).hexdigest()
    return Request(f"object-events/{digest}", digest)
