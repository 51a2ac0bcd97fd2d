"""Folders that jobs may read: below allowed roots only, whatever links and dots say."""

import os
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from ingest_svc.jobs import Entry, not_readable, too_many_files
from ingest_svc.threads import in_thread
from meshkit.errors import MeshError, invalid, map_exceptions

_LISTED_AT_ONCE = 1000
# A file changed so lately may change once more with no change of its times, which count in ticks.
_SETTLED_S = 2.0


class FolderSource:
    """The files below a folder, or a lone file; nothing to close. See Source."""

    def __init__(self, folder: Path, uri: str, max_files: int) -> None:
        self._folder = folder
        self._uri = uri
        self._max_files = max_files

    async def entries(self) -> AsyncGenerator[Entry]:
        found, count = self._walk(), 0
        while entries := await in_thread(list, islice(found, _LISTED_AT_ONCE)):
            for entry in entries:
                yield entry
            count += len(entries)
            if count > self._max_files:
                raise too_many_files(self._max_files)

    def uri(self, path: str) -> str:
        return f"{self._uri}/{path}"

    async def find(self, path: str) -> Entry | None:
        return await in_thread(self._find, path)

    async def read(self, entry: Entry, part_bytes: int) -> AsyncGenerator[bytes]:
        with self._unreadable(entry.uri), ExitStack() as opened:
            file = await in_thread(self._open, entry, opened)
            while part := await in_thread(file.read, part_bytes):
                yield part

    def _open(self, entry: Entry, opened: ExitStack) -> BinaryIO:
        target = self._folder if self._folder.is_file() else (self._folder / entry.path).resolve(strict=True)
        if not target.is_relative_to(self._folder):
            raise not_readable(entry.uri)
        # The last step follows no link, in case one was put there since, and waits for no pipe.
        descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        # Who is cancelled meanwhile has no file to close, but what is opened here.
        return opened.enter_context(os.fdopen(descriptor, "rb", buffering=0))

    def _walk(self) -> Iterator[Entry]:
        if self._folder.is_file():
            yield _entry(self._folder, self._folder.name, self._uri)
            return
        for folder, below, names in os.walk(self._folder, followlinks=False, onerror=self._refuse):
            below[:] = _shown(below)
            for name in _shown(names):
                entry = self._find(Path(folder, name).relative_to(self._folder).as_posix())
                if entry is not None:
                    yield entry

    def _find(self, path: str) -> Entry | None:
        file = self._folder / path
        try:
            inside = file.is_file() and file.resolve().is_relative_to(self._folder)
            return _entry(file, path, self.uri(path)) if inside else None
        except (OSError, ValueError):
            return None

    def _refuse(self, error: OSError) -> None:
        if error.filename == str(self._folder):
            raise not_readable(self._uri) from error

    @contextmanager
    def _unreadable(self, uri: str) -> Iterator[None]:
        def error_of(_error: Exception) -> MeshError:
            return not_readable(uri)

        with map_exceptions({OSError: error_of}):
            yield


class FolderSources:
    """`file://` folders below the allowed roots; nothing to close. See Sources."""

    def __init__(self, roots: Sequence[Path], max_files: int) -> None:
        self._roots = [root.resolve() for root in roots]
        self._max_files = max_files

    async def open(self, tenant: str, uri: str) -> FolderSource:  # noqa: ARG002 - all tenants may read the roots
        return await in_thread(self._open, uri)

    async def forget(self, tenant: str, uri: str) -> None:
        """Do nothing: folders are not put there for a job."""

    def _open(self, uri: str) -> FolderSource:
        folder = self._folder(uri)
        allowed = any(folder.is_relative_to(root) for root in self._roots)
        if not allowed or not (folder.is_dir() or folder.is_file()):
            # One answer for all: it tells nobody what there is outside.
            raise not_readable(uri)
        return FolderSource(folder, uri.rstrip("/"), self._max_files)

    def _folder(self, uri: str) -> Path:
        try:
            parts = urlsplit(uri)
            if "?" in uri or "#" in uri:
                raise invalid("source_uri", "file: has no query and no fragment; in a name write %3F and %23")
            path = Path(unquote(parts.path))
            if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not path.is_absolute():
                raise not_readable(uri)
            return path.resolve()
        except (ValueError, OSError, RuntimeError) as error:
            raise not_readable(uri) from error


def _shown(names: list[str]) -> list[str]:
    """The names in order; without those of hidden files and folders, as `.git`."""
    return sorted(name for name in names if not name.startswith("."))


def _entry(file: Path, path: str, uri: str) -> Entry:
    status = file.stat()
    settled = time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED_S
    version = f"{status.st_mtime_ns:x}-{status.st_ctime_ns:x}-{status.st_size:x}" if settled else ""
    return Entry(path, uri, status.st_size, version)
