"""Where documents' bytes are kept: uploads while they arrive, objects once they are whole."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol


def text_key(key: str) -> str:
    """The object that holds the text read from the object `key`, where its password is not kept."""
    return f"{key}.text"


def chunks_key(key: str) -> str:
    """The object that holds the chunks of the object `key` while they wait for their vectors."""
    return f"{key}.chunks"


class Upload(Protocol):
    """Bytes that arrive; kept for a while when the upload breaks off, so that it can go on."""

    @property
    def id(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def content_hash(self) -> str:
        """The SHA-256 of the bytes so far, in hexadecimal."""

    async def append(self, data: bytes) -> None: ...

    async def store(self, key: str) -> None:
        """Make the bytes the object `key`; when this returns they survive a crash, and the upload has ended."""

    async def discard(self) -> None:
        """Forget the bytes."""


class ObjectStore(Protocol):
    """Objects by key (`tenant/collection/document/object`); raises STORE_UNAVAILABLE where it fails."""

    def open_upload(self, tenant: str, id: str = "") -> AbstractAsyncContextManager[Upload]:
        """A new upload or, by its id, one of the tenant's that broke off; empty where that has expired.

        Raises INVALID_FIELD for an id that is none, OFFSET_MISMATCH where another call writes the upload.
        """

    def open_file(self, key: str) -> AbstractAsyncContextManager[Path]:
        """A local file with the object's bytes, to read while the body runs; raises KeyError where there is none."""

    async def put(self, key: str, data: bytes) -> None: ...

    async def get(self, key: str) -> bytes | None: ...

    async def remove(self, key: str) -> None:
        """Remove an object, or all under a prefix; one that is not there is no failure."""
