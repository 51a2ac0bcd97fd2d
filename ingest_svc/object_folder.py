"""Objects in a local folder: written beside, synced, renamed into place.

obstore has a store of folders too, which syncs nothing: what it calls written may be gone after a crash.
"""

import fcntl
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ingest_svc.expiry import open_expiry
from ingest_svc.threads import in_thread
from meshkit.errors import Aborted, Unavailable, invalid, map_exceptions

_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")
_HASH_PART_BYTES = 1024 * 1024
_RETRY_AFTER_S = 1.0


class FolderUpload:
    """Bytes on their way into a file; one writer at a time. Opened and closed by ObjectFolder."""

    def __init__(self, id: str, path: Path, objects: Path) -> None:
        self.id = id
        self.size = 0
        self._file: BinaryIO | None = None
        self._path = path
        self._objects = objects
        self._hash = hashlib.sha256()

    @property
    def content_hash(self) -> str:
        return self._hash.hexdigest()

    async def append(self, data: bytes) -> None:
        with _disk_errors():
            await in_thread(self._append, data)

    async def store(self, key: str) -> None:
        with _disk_errors():
            await in_thread(self._store, self._objects / key)

    async def discard(self) -> None:
        with _disk_errors():
            await in_thread(self._path.unlink, missing_ok=True)

    def open(self) -> None:
        """Open the file for this call only, and read what it holds already. Blocks."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = "another call writes this upload"
            raise Aborted("OFFSET_MISMATCH", message, retry_after_s=_RETRY_AFTER_S) from error
        self._file.seek(0)
        while part := self._file.read(_HASH_PART_BYTES):
            self._count(part)

    def close(self) -> None:
        """Close the file, where it was opened. Blocks."""
        if self._file is not None:
            self._file.close()

    def _append(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._opened().write(left) :]
        self._count(data)

    def _store(self, target: Path) -> None:
        os.fsync(self._opened().fileno())
        _make_folder(target.parent)
        self._path.replace(target)
        _sync(target.parent)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("the upload is not open")
        return self._file

    def _count(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)


class ObjectFolder:
    """Objects and uploads below one folder, which replicas may share; opened by `open_object_folder`."""

    def __init__(self, folder: Path) -> None:
        self._objects = folder / "objects"
        self._uploads = folder / "uploads"

    @asynccontextmanager
    async def open_upload(self, tenant: str, id: str = "") -> AsyncIterator[FolderUpload]:
        """A new upload, or one that broke off. See ObjectStore."""
        if id and not _UPLOAD_ID.fullmatch(id):
            raise invalid("begin.upload_id", "is not the id of an upload")
        upload_id = id or uuid.uuid4().hex
        upload = FolderUpload(upload_id, self._uploads / tenant / upload_id, self._objects)
        try:
            with _disk_errors():
                await in_thread(upload.open)
            yield upload
        finally:
            await in_thread(upload.close)

    @asynccontextmanager
    async def open_file(self, key: str) -> AsyncIterator[Path]:
        """The object's own file. See ObjectStore."""
        path = self._objects / key
        if not await in_thread(path.is_file):
            raise KeyError(key)
        yield path

    async def put(self, key: str, data: bytes) -> None:
        async with self.open_upload(key.partition("/")[0]) as upload:
            await upload.append(data)
            await upload.store(key)

    async def get(self, key: str) -> bytes | None:
        try:
            with _disk_errors():
                return await in_thread((self._objects / key).read_bytes)
        except Unavailable as error:
            if isinstance(error.__cause__, FileNotFoundError | IsADirectoryError):
                return None
            raise

    async def remove(self, key: str) -> None:
        with _disk_errors():
            await in_thread(_remove, self._objects / key)

    async def expire(self, before_s: float) -> None:
        """Forget uploads that nobody wrote to since a Unix time."""
        with _disk_errors():
            await in_thread(_expire, self._uploads, before_s)


@asynccontextmanager
async def open_object_folder(
    folder: Path, upload_ttl_s: float, expiry_interval_s: float
) -> AsyncIterator[ObjectFolder]:
    """The folder, made where it is not there; uploads expire in it while the body runs."""
    for part in ("objects", "uploads"):
        await in_thread(_make_folder, folder / part)
    store = ObjectFolder(folder)
    async with open_expiry(store.expire, upload_ttl_s, expiry_interval_s):
        yield store


@contextmanager
def _disk_errors() -> Iterator[None]:
    with map_exceptions({OSError: _unavailable}):
        yield


def _unavailable(_error: Exception) -> Unavailable:
    return Unavailable("STORE_UNAVAILABLE", "the store of documents' bytes fails")


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they survive a crash."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        _sync(each.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    path.unlink(missing_ok=True)
    with suppress(OSError):
        # The document's folder, where this was the last object in it.
        path.parent.rmdir()


def _expire(uploads: Path, before_s: float) -> None:
    for path in uploads.glob("*/*"):
        if path.stat().st_mtime < before_s:
            path.unlink(missing_ok=True)
