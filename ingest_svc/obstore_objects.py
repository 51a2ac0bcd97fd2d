"""Objects in S3, Google's or Azure's store; uploads wait there in parts, so that any replica can take them up again."""

import hashlib
import re
import tempfile
import uuid
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError

from ingest_svc.expiry import open_expiry
from ingest_svc.obstore_store import Store, StoreOptions, open_store, store_errors
from ingest_svc.places import Place
from ingest_svc.threads import in_thread
from meshkit.errors import Aborted, MeshError, Unavailable, invalid

if TYPE_CHECKING:
    # obstore has its types in stubs alone.
    from obstore import ObjectMeta

_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")
_READ_BYTES = 1024 * 1024
_LISTED_AT_ONCE = 1000
# The least that S3 takes as a part of one object.
_MULTIPART_BYTES = 5 * 1024 * 1024
_RETRY_AFTER_S = 1.0
_OFFSET_DIGITS = 20


class ObstoreUpload:
    """Bytes on their way into an object: in parts, of which the last waits in memory. Opened by ObstoreObjects.

    A part is written only where none is at its offset: of two calls that write the same upload, one is refused.
    """

    def __init__(self, store: Store, place: Place, tenant: str, id: str, part_bytes: int) -> None:
        self.id = id
        self.size = 0
        self._store = store
        self._place = place
        self._folder = place.key(f"parts/{tenant}/{id}")
        self._part_bytes = part_bytes
        self._hash = hashlib.sha256()
        self._parts: list[str] = []
        self._waiting = bytearray()

    @property
    def content_hash(self) -> str:
        return self._hash.hexdigest()

    async def append(self, data: bytes) -> None:
        self._waiting += data
        self._count(data)
        if len(self._waiting) >= self._part_bytes:
            await self._keep()

    async def store(self, key: str) -> None:
        with store_errors():
            try:
                await self._store_at(self._place.key(f"objects/{key}"))
            except FileNotFoundError as error:
                # The other call has stored the parts, or forgotten them.
                raise _written_elsewhere() from error
        # The object is there: parts that cannot be removed now expire.
        with suppress(MeshError):
            await self.discard()

    async def discard(self) -> None:
        self._waiting.clear()
        parts, self._parts = self._parts, []
        with store_errors(), suppress(FileNotFoundError):
            if parts:
                await obstore.delete_async(self._store, parts)

    async def take_up(self) -> None:
        """Read what has been kept of the upload."""
        with store_errors(), suppress(FileNotFoundError):
            async for page in obstore.list(self._store, self._folder, chunk_size=_LISTED_AT_ONCE):
                for meta in page:
                    if meta["path"] == self._part(self.size):
                        await self._read(meta["path"])

    async def close(self) -> None:
        """Keep what waits in memory, so that the upload can go on; it may have ended."""
        if self._waiting:
            # The call has failed already, or another one writes the upload now.
            with suppress(MeshError):
                await self._keep()

    async def _store_at(self, key: str) -> None:
        if not self._parts:
            await obstore.put_async(self._store, key, bytes(self._waiting), use_multipart=False)
            return
        await obstore.put_async(self._store, key, self._bytes(), chunk_size=_MULTIPART_BYTES, max_concurrency=1)

    async def _read(self, part: str) -> None:
        found = await obstore.get_async(self._store, part)
        self._parts.append(part)
        async for data in found.stream(_READ_BYTES):
            self._count(data)

    async def _keep(self) -> None:
        part, data = self._part(self.size - len(self._waiting)), bytes(self._waiting)
        with store_errors():
            try:
                await obstore.put_async(self._store, part, data, mode="create", use_multipart=False)
            except AlreadyExistsError as error:
                raise _written_elsewhere() from error
        self._parts.append(part)
        self._waiting.clear()

    async def _bytes(self) -> AsyncGenerator[bytes]:
        for part in self._parts:
            found = await obstore.get_async(self._store, part)
            async for data in found.stream(_READ_BYTES):
                yield bytes(data)
        yield bytes(self._waiting)

    def _part(self, offset: int) -> str:
        return f"{self._folder}/{offset:0{_OFFSET_DIGITS}}"

    def _count(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)


def _written_elsewhere() -> Aborted:
    return Aborted("OFFSET_MISMATCH", "another call writes this upload", retry_after_s=_RETRY_AFTER_S)


class ObstoreObjects:
    """Objects and uploads below one place, which replicas share; opened by `open_obstore_objects`. See ObjectStore."""

    def __init__(self, store: Store, place: Place, part_bytes: int) -> None:
        self._store = store
        self._place = place
        self._part_bytes = part_bytes

    @asynccontextmanager
    async def open_upload(self, tenant: str, id: str = "") -> AsyncIterator[ObstoreUpload]:
        if id and not _UPLOAD_ID.fullmatch(id):
            raise invalid("begin.upload_id", "is not the id of an upload")
        upload = ObstoreUpload(self._store, self._place, tenant, id or uuid.uuid4().hex, self._part_bytes)
        if id:
            await upload.take_up()
        try:
            yield upload
        finally:
            await upload.close()

    @asynccontextmanager
    async def open_file(self, key: str) -> AsyncIterator[Path]:
        """A copy in the system's folder for temporary files, while the body runs. See ObjectStore."""
        with tempfile.NamedTemporaryFile(prefix="ragmesh-", buffering=0) as file:
            try:
                with store_errors():
                    await self._download(key, file)
            except FileNotFoundError as error:
                raise KeyError(key) from error
            yield Path(file.name)

    async def put(self, key: str, data: bytes) -> None:
        with store_errors():
            await obstore.put_async(self._store, self._key(key), data, use_multipart=False)

    async def get(self, key: str) -> bytes | None:
        with store_errors():
            try:
                found = await obstore.get_async(self._store, self._key(key))
                return bytes(await found.bytes_async())
            except FileNotFoundError:
                return None

    async def remove(self, key: str) -> None:
        with store_errors():
            await self._delete([self._key(key)])
            async for page in obstore.list(self._store, self._key(key), chunk_size=_LISTED_AT_ONCE):
                await self._delete([meta["path"] for meta in page])

    async def expire(self, before_s: float) -> None:
        """Forget uploads that nobody wrote to since a Unix time, and what was put into the inbox before it."""
        with store_errors():
            for folder in ("parts", "uploads"):
                for keys in await self._untouched(folder, before_s):
                    await self._delete(keys)

    async def _untouched(self, folder: str, before_s: float) -> list[list[str]]:
        """The keys of each upload of which no part is as new as the time."""
        uploads: defaultdict[str, list[ObjectMeta]] = defaultdict(list)
        async for page in obstore.list(self._store, self._place.key(folder), chunk_size=_LISTED_AT_ONCE):
            for meta in page:
                uploads[meta["path"].rpartition("/")[0] if folder == "parts" else meta["path"]].append(meta)
        return [
            [meta["path"] for meta in parts]
            for parts in uploads.values()
            if max(meta["last_modified"].timestamp() for meta in parts) < before_s
        ]

    async def _download(self, key: str, file: IO[bytes]) -> None:
        found = await obstore.get_async(self._store, self._key(key))
        async for part in found.stream(_READ_BYTES):
            try:
                await in_thread(file.write, part)
            except OSError as error:
                message = "the folder for temporary files takes no document's bytes"
                raise Unavailable("STORE_UNAVAILABLE", message) from error

    async def _delete(self, keys: list[str]) -> None:
        # Not every store forgives the absence of what is to go.
        with suppress(FileNotFoundError):
            await obstore.delete_async(self._store, keys)

    def _key(self, key: str) -> str:
        return self._place.key(f"objects/{key}")


@asynccontextmanager
async def open_obstore_objects(
    place: Place, options: StoreOptions, part_bytes: int, upload_ttl_s: float, expiry_interval_s: float
) -> AsyncIterator[ObstoreObjects]:
    """The place; uploads of `part_bytes` in memory each, and expiring there, while the body runs."""
    objects = ObstoreObjects(open_store(place, options), place, part_bytes)
    async with open_expiry(objects.expire, upload_ttl_s, expiry_interval_s):
        yield objects
