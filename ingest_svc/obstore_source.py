"""Buckets that jobs may read: below allowed places only."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import GenericError, InvalidPathError, PermissionDeniedError, UnauthenticatedError

from ingest_svc.jobs import Entry, Source, not_readable, too_many_files
from ingest_svc.obstore_store import Store, StoreOptions, open_store, store_errors
from ingest_svc.places import Place, parse_place
from meshkit.errors import InvalidArgument, MeshError, map_exceptions

if TYPE_CHECKING:
    # obstore has its types in stubs alone.
    from obstore import ObjectMeta

_LISTED_AT_ONCE = 1000
_NO_BUCKET = "status code: 404"


class PrefixSource:
    """The objects below a prefix; nothing to close. See Source."""

    def __init__(self, store: Store, place: Place, max_files: int) -> None:
        self._store = store
        self._place = place
        self._max_files = max_files

    async def entries(self) -> AsyncGenerator[Entry]:
        count = 0
        with source_errors(self._place.url):
            async for page in obstore.list(self._store, self._place.prefix or None, chunk_size=_LISTED_AT_ONCE):
                for meta in page:
                    # An empty object may be a folder as some tools mark it: a key with a slash behind, cut off here.
                    if not meta["size"] and await self._meta(meta["path"]) is None:
                        continue
                    count += 1
                    if count > self._max_files:
                        raise too_many_files(self._max_files)
                    yield self._entry(meta)

    def uri(self, path: str) -> str:
        return f"{self._place.url}/{path}"

    async def find(self, path: str) -> Entry | None:
        with source_errors(self.uri(path)):
            meta = await self._meta(self._place.key(path))
        return self._entry(meta) if meta else None

    def read(self, entry: Entry, part_bytes: int) -> AsyncGenerator[bytes]:
        return _read(self._store, self._place.key(entry.path), entry.uri, part_bytes)

    async def there(self) -> bool:
        """Whether there is anything below the prefix; raises as `entries` does."""
        with source_errors(self._place.url):
            async for page in obstore.list(self._store, self._place.prefix or None, chunk_size=1):
                return bool(page)
        return False

    async def _meta(self, key: str) -> "ObjectMeta | None":
        try:
            return await obstore.head_async(self._store, key)
        except FileNotFoundError:
            return None

    def _entry(self, meta: "ObjectMeta") -> Entry:
        path = self._place.path(meta["path"])
        return Entry(path, self.uri(path), meta["size"], version(meta))


class LoneObject:
    """An object that is a source by itself; nothing to close. See Source."""

    def __init__(self, store: Store, key: str, entry: Entry) -> None:
        self._store = store
        self._key = key
        self._entry = entry

    async def entries(self) -> AsyncGenerator[Entry]:
        yield self._entry

    def uri(self, path: str) -> str:
        return self._entry.uri if path == self._entry.path else f"{self._entry.uri}/{path}"

    async def find(self, path: str) -> Entry | None:
        return self._entry if path == self._entry.path else None

    def read(self, entry: Entry, part_bytes: int) -> AsyncGenerator[bytes]:
        return _read(self._store, self._key, entry.uri, part_bytes)


class BucketSources:
    """`s3://`, `gs://` and `az://` prefixes and objects below the allowed places; nothing to close. See Sources."""

    def __init__(self, roots: Sequence[Place], options: StoreOptions, max_files: int) -> None:
        self._stores = {root: open_store(root, options) for root in roots}
        self._max_files = max_files

    async def open(self, tenant: str, uri: str) -> Source:  # noqa: ARG002 - all tenants may read the roots
        place, store = self._allowed(uri)
        if place.prefix and not uri.endswith("/"):
            with source_errors(uri):
                try:
                    meta = await obstore.head_async(store, place.prefix)
                    name = place.prefix.rpartition("/")[2]
                    return LoneObject(store, place.prefix, Entry(name, place.url, meta["size"], version(meta)))
                except FileNotFoundError:
                    pass
        source = PrefixSource(store, place, self._max_files)
        # A root is there even with nothing in it.
        if not await source.there() and place not in self._stores:
            raise not_readable(uri)
        return source

    async def forget(self, tenant: str, uri: str) -> None:
        """Do nothing: these places are not for one job alone."""

    def _allowed(self, uri: str) -> tuple[Place, Store]:
        try:
            place = parse_place(uri)
        except ValueError as error:
            raise not_readable(uri) from error
        for root, store in self._stores.items():
            if root.contains(place):
                return place, store
        raise not_readable(uri)


async def _read(store: Store, key: str, uri: str, part_bytes: int) -> AsyncGenerator[bytes]:
    """An object's bytes in parts, of which one or two are in memory; raises SOURCE_NOT_READABLE, STORE_UNAVAILABLE."""
    with source_errors(uri):
        found = await obstore.get_async(store, key)
        async for part in found.stream(part_bytes):
            yield bytes(part)


def version(meta: "ObjectMeta") -> str:
    """What stands for an object's content, as the store has it."""
    return meta["e_tag"] or meta["version"] or f"{meta['last_modified'].isoformat()} {meta['size']}"


@contextmanager
def source_errors(uri: str) -> Iterator[None]:
    """Raise SOURCE_NOT_READABLE where the store has nothing for us at the URI, STORE_UNAVAILABLE where it fails."""

    def hidden(_error: Exception) -> MeshError:
        return not_readable(uri)

    refusals = (FileNotFoundError, PermissionDeniedError, UnauthenticatedError)
    with store_errors(), map_exceptions({**dict.fromkeys(refusals, hidden), InvalidPathError: _unnamable}):
        try:
            yield
        except GenericError as error:
            # Listing a bucket that is not there has no error of its own.
            if _NO_BUCKET in str(error):
                raise not_readable(uri) from error
            raise


def _unnamable(_error: Exception) -> InvalidArgument:
    message = "the source has an object whose key has empty, `.` or `..` parts, which cannot be read"
    return InvalidArgument("SOURCE_NOT_READABLE", message)
