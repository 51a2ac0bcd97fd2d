"""Folders that jobs may read: below allowed roots only, whatever links and dots say."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from meshkit.errors import InvalidArgument


class FolderSource:
    """The files below a folder; nothing to close. See Source."""

    def __init__(self, folder: Path, uri: str, max_files: int) -> None:
        self._folder = folder
        self._uri = uri
        self._max_files = max_files

    def files(self) -> Sequence[str]:
        found = []
        for path in self._walk():
            found.append(path)
            if len(found) > self._max_files:
                metadata = {"limit_files": str(self._max_files)}
                raise InvalidArgument("TOO_LARGE", "the source has too many files", metadata=metadata)
        return sorted(found)

    def read(self, path: str, part_bytes: int) -> Iterator[bytes]:
        try:
            target = (self._folder / path).resolve(strict=True)
            if not target.is_relative_to(self._folder):
                raise _unreadable(f"{self._uri}/{path}")
            # The last step follows no link, in case one was put there since.
            descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                while part := file.read(part_bytes):
                    yield part
        except OSError as error:
            raise _unreadable(f"{self._uri}/{path}") from error

    def _walk(self) -> Iterator[str]:
        for folder, _, names in os.walk(self._folder, followlinks=False, onerror=self._refuse):
            for name in names:
                path = Path(folder, name)
                if path.is_file() and path.resolve().is_relative_to(self._folder):
                    yield path.relative_to(self._folder).as_posix()

    def _refuse(self, error: OSError) -> None:
        if error.filename == str(self._folder):
            raise _unreadable(self._uri) from error


class FolderSources:
    """`file://` folders below the allowed roots; nothing to close. See Sources."""

    def __init__(self, roots: Sequence[Path], max_files: int) -> None:
        self._roots = [root.resolve() for root in roots]
        self._max_files = max_files

    def open(self, uri: str) -> FolderSource:
        folder = self._folder(uri)
        if not any(folder.is_relative_to(root) for root in self._roots) or not folder.is_dir():
            # One answer for all: it tells nobody what there is outside.
            raise _unreadable(uri)
        return FolderSource(folder, uri.rstrip("/"), self._max_files)

    def _folder(self, uri: str) -> Path:
        try:
            parts = urlsplit(uri)
            path = Path(unquote(parts.path))
            if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not path.is_absolute():
                raise _unreadable(uri)
            return path.resolve()
        except (ValueError, OSError, RuntimeError) as error:
            raise _unreadable(uri) from error


def _unreadable(uri: str) -> InvalidArgument:
    message = "the source does not exist, or is outside the places that this mesh may read"
    return InvalidArgument("SOURCE_NOT_READABLE", message, metadata={"uri": uri})
