"""Where documents' bytes are kept: a folder and an S3, by the same tests."""

import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import pytest

from ingest_svc.object_folder import ObjectFolder, open_object_folder
from ingest_svc.obstore_objects import ObstoreObjects, open_obstore_objects
from ingest_svc.obstore_store import StoreOptions
from ingest_svc.places import parse_place
from meshkit.errors import MeshError
from tests.ingest_svc.object_stores import BUCKET, S3

Objects = ObjectFolder | ObstoreObjects
Open = Callable[[], AbstractAsyncContextManager[Objects]]

KEY = "acme/handbook/page/1"
PART_BYTES = 1_000
HOUR_S = 3600.0


@pytest.fixture(params=["folder", "s3"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the store; each time it is opened is a replica of its own."""
    if request.param == "folder":
        return lambda: open_object_folder(tmp_path, HOUR_S, HOUR_S)
    s3: S3 = request.getfixturevalue("s3")
    place, options = parse_place(f"s3://{BUCKET}/ragmesh"), StoreOptions(2.0, s3.url)
    return lambda: open_obstore_objects(place, options, PART_BYTES, HOUR_S, HOUR_S)


@pytest.fixture
async def objects(opened: Open) -> AsyncIterator[Objects]:
    """The store."""
    async with opened() as store:
        yield store


async def test_what_is_put_can_be_read(objects: Objects) -> None:
    """An object is read as it was put, in memory and as a file; one that is not there is none."""
    await objects.put(KEY, b"Its bytes.")
    assert await objects.get(KEY) == b"Its bytes."
    async with objects.open_file(KEY) as file:
        assert file.read_bytes() == b"Its bytes."
    assert await objects.get("acme/handbook/page") is None
    assert await objects.get("acme/handbook/page/2") is None
    with pytest.raises(KeyError):
        async with objects.open_file("acme/handbook/page/2"):
            pass


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, 6_000_000])
async def test_an_upload_becomes_an_object(objects: Objects, size: int) -> None:
    """Bytes in pieces of any size are one object, known by their hash; nothing else is left of the upload."""
    data = random.Random(size).randbytes(size)
    async with objects.open_upload("acme") as upload:
        for start in range(0, size, 1_500_000):
            await upload.append(data[start : start + 1_500_000])
        assert (upload.size, upload.content_hash) == (size, hashlib.sha256(data).hexdigest())
        await upload.store(KEY)
        id = upload.id
    assert await objects.get(KEY) == data
    async with objects.open_upload("acme", id) as again:
        assert again.size == 0


async def test_a_broken_upload_goes_on_elsewhere(opened: Open) -> None:
    """What was received before a break is taken up by another replica, to the byte."""
    data = random.Random(7).randbytes(3_500)
    async with AsyncExitStack() as stack:
        here, there = [await stack.enter_async_context(opened()) for _ in range(2)]
        with pytest.raises(ConnectionError):
            async with here.open_upload("acme") as upload:
                await upload.append(data[:2_000])
                await upload.append(data[2_000:2_300])
                raise ConnectionError
        async with there.open_upload("acme", upload.id) as again:
            assert (again.size, again.content_hash) == (2_300, hashlib.sha256(data[:2_300]).hexdigest())
            await again.append(data[2_300:])
            assert again.content_hash == hashlib.sha256(data).hexdigest()
            await again.store(KEY)
        assert await there.get(KEY) == data


async def test_an_upload_is_its_tenants_and_its_ids(objects: Objects) -> None:
    """By another tenant an upload is not found; what is no id is refused."""
    async with objects.open_upload("acme") as upload:
        await upload.append(b"x" * PART_BYTES)
    async with objects.open_upload("other", upload.id) as theirs:
        assert theirs.size == 0
    for id in ("../" * 8 + "x", "none"):
        with pytest.raises(MeshError) as failed:
            async with objects.open_upload("acme", id):
                pass
        assert failed.value.reason == "INVALID_FIELD"


async def test_of_two_writers_one_is_refused(objects: Objects) -> None:
    """Two calls that write the same upload cannot mix their bytes: the later is told where it stands."""
    async with objects.open_upload("acme") as broken:
        await broken.append(b"a" * PART_BYTES)
    with pytest.raises(MeshError) as failed:
        async with objects.open_upload("acme", broken.id) as one, objects.open_upload("acme", broken.id) as two:
            await one.append(b"b" * PART_BYTES)
            await two.append(b"c" * PART_BYTES)
    assert (failed.value.code, failed.value.reason) == ("ABORTED", "OFFSET_MISMATCH")
    async with objects.open_upload("acme", broken.id) as upload:
        await upload.store(KEY)
    assert b"c" not in (await objects.get(KEY) or b"")


async def test_an_upload_that_another_call_ended_is_refused(s3: S3) -> None:
    """Who comes late to end an upload, whose parts have gone, is refused and leaves no object."""
    place, options = parse_place(f"s3://{BUCKET}/ragmesh"), StoreOptions(2.0, s3.url)
    async with open_obstore_objects(place, options, PART_BYTES, HOUR_S, HOUR_S) as objects:
        async with objects.open_upload("acme") as broken:
            await broken.append(b"a" * PART_BYTES)
        with pytest.raises(MeshError) as failed:
            async with objects.open_upload("acme", broken.id) as one, objects.open_upload("acme", broken.id) as two:
                await one.store(KEY)
                await two.store(f"{KEY}2")
        assert failed.value.reason == "OFFSET_MISMATCH"
        assert s3.keys() == [f"ragmesh/objects/{KEY}"]


async def test_a_discarded_upload_leaves_nothing(objects: Objects) -> None:
    """Once discarded an upload begins anew."""
    async with objects.open_upload("acme") as upload:
        await upload.append(b"x" * 2 * PART_BYTES)
        await upload.discard()
    async with objects.open_upload("acme", upload.id) as again:
        assert again.size == 0


async def test_objects_are_removed_one_by_one_or_together(objects: Objects) -> None:
    """Removing takes an object or all below a prefix, and no neighbour; a second time changes nothing."""
    keys = ["acme/one/a/1", "acme/one/a/1.text", "acme/one/b/1", "acme/one2/a/1"]
    for key in keys:
        await objects.put(key, b"x")
    for key, left in (("acme/one/a/1", keys[1:]), ("acme/one", keys[3:])):
        for _ in range(2):
            await objects.remove(key)
        assert [each for each in keys if await objects.get(each)] == left


async def test_uploads_expire(objects: Objects) -> None:
    """An upload that nobody wrote to for long is forgotten, an object never."""
    await objects.put(KEY, b"x")
    async with objects.open_upload("acme") as upload:
        await upload.append(b"x" * 2 * PART_BYTES)
    for before_s, size in ((time.time() - HOUR_S, 2 * PART_BYTES), (time.time() + HOUR_S, 0)):
        await objects.expire(before_s)
        async with objects.open_upload("acme", upload.id) as again:
            assert again.size == size
    assert await objects.get(KEY) == b"x"


async def test_a_store_that_is_away_is_told(s3: S3) -> None:
    """Whatever is asked of a store that is away fails as UNAVAILABLE."""
    place, options = parse_place(f"s3://{BUCKET}/ragmesh"), StoreOptions(1.0, s3.url)
    async with open_obstore_objects(place, options, PART_BYTES, HOUR_S, HOUR_S) as objects:
        async with objects.open_upload("acme") as upload:
            await upload.append(b"x" * PART_BYTES)
        s3.stop()
        try:
            for call in (objects.get(KEY), objects.put(KEY, b"x"), objects.remove(KEY), _size(objects, upload.id)):
                with pytest.raises(MeshError) as failed:
                    await call
                assert (failed.value.code, failed.value.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE")
        finally:
            s3.start()
        assert await _size(objects, upload.id) == PART_BYTES


async def _size(objects: Objects, id: str) -> int:
    async with objects.open_upload("acme", id) as upload:
        return upload.size
