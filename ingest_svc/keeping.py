"""Collections: made with their index, changed, deleted with all they hold."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from ingest_svc.catalog import Catalog, Collection, FilterableField, Request, now
from ingest_svc.chunking import Strategies
from ingest_svc.encoder import Encoder, describe
from ingest_svc.index import Index
from ingest_svc.objects import ObjectStore
from ingest_svc.work import Locks
from meshkit.errors import Aborted, AlreadyExists, FailedPrecondition, invalid


@dataclass(frozen=True, slots=True)
class Wanted:
    """Settings of a collection as asked for; empty ones ask for the default."""

    display_name: str = ""
    description: str = ""
    chunking: tuple[str, Mapping[str, Any]] = ("", MappingProxyType({}))
    encoder: str = ""
    language: str = ""
    fusion: Mapping[str, Any] | None = None
    filterable_fields: Sequence[FilterableField] = ()


SETTINGS = tuple(field.name for field in fields(Wanted))


class Keeping:
    """Keeps the collections; lives as long as its process, nothing to close."""

    def __init__(
        self,
        catalog: Catalog,
        objects: ObjectStore,
        encoder: Encoder,
        index: Index,
        locks: Locks,
        strategies: Strategies,
        lock_wait_s: float,
    ) -> None:
        self._catalog = catalog
        self._objects = objects
        self._encoder = encoder
        self._index = index
        self._locks = locks
        self._strategies = strategies
        self._lock_wait_s = lock_wait_s

    async def create(self, tenant: str, id: str, wanted: Wanted, request: Request | None) -> Collection:
        """Make a collection and its index.

        Raises COLLECTION_EXISTS, REQUEST_ID_REUSED, STRATEGY_NOT_FOUND, MODEL_NOT_FOUND or INVALID_FIELD.
        """
        async with self._locks.hold(tenant, f"collections/{id}", self._lock_wait_s):
            if request is not None:
                made = await self._catalog.created_by(tenant, request)
                if made:
                    return await self._catalog.get_collection(tenant, made)
            if await self._catalog.find_collection(tenant, id) is not None:
                metadata = {"collection": f"collections/{id}"}
                raise AlreadyExists("COLLECTION_EXISTS", f"collections/{id} exists", metadata=metadata)
            collection = await self._new(id, wanted)
            await self._index.put(collection)
            await self._catalog.create_collection(tenant, collection, request)
            return collection

    async def update(self, tenant: str, id: str, wanted: Wanted, names: Iterable[str], etag: str) -> Collection:
        """Change the settings that `names` has; with an etag, only where it is the current one.

        Raises COLLECTION_NOT_FOUND, ETAG_MISMATCH, ENCODER_MISMATCH, STRATEGY_NOT_FOUND or INVALID_FIELD.
        """
        async with self._locks.hold(tenant, f"collections/{id}", self._lock_wait_s):
            before = await self._catalog.get_collection(tenant, id)
            if etag and etag != before.etag:
                raise _stale(before)
            values = await self._resolved(wanted, names)
            after = before.revised(**values, update_time=now())
            await self._check_same_vectors(tenant, before, after)
            await self._index.put(after)
            if not await self._catalog.replace_collection(tenant, after):
                raise _stale(before)
            return after

    async def delete(self, tenant: str, id: str, *, force: bool) -> None:
        """Delete a collection with its index and documents; a repeated call finishes one that broke off.

        Raises COLLECTION_NOT_FOUND, and COLLECTION_NOT_EMPTY without `force`.
        """
        async with self._locks.hold(tenant, f"collections/{id}", self._lock_wait_s):
            collection = await self._catalog.get_collection(tenant, id)
            documents = await self._catalog.count_documents(tenant, id)
            if documents and not force:
                metadata = {"documents": str(documents)}
                message = f"{collection.name} has documents"
                raise FailedPrecondition("COLLECTION_NOT_EMPTY", message, metadata=metadata)
            for held in (collection.beside, collection):
                if held is not None:
                    await self._index.delete(held.name)
            await self._catalog.remove_collection(tenant, id)
            await self._objects.remove(f"{tenant}/{id}")

    async def _new(self, id: str, wanted: Wanted) -> Collection:
        at = now()
        return Collection(id=id, create_time=at, update_time=at, **await self._resolved(wanted, SETTINGS))

    async def _resolved(self, wanted: Wanted, names: Iterable[str]) -> dict[str, Any]:
        """The settings named, as they are kept: the strategy with all its parameters, the encoder with its revision."""
        values = {name: getattr(wanted, name) for name in names}
        if "chunking" in values:
            values["chunking"] = self._strategies.resolve(*wanted.chunking, field="collection.chunking")
        if "encoder" in values:
            values["encoder"] = await describe(self._encoder, wanted.encoder)
        if "filterable_fields" in values:
            values["filterable_fields"] = _distinct(wanted.filterable_fields)
        return values

    async def _check_same_vectors(self, tenant: str, before: Collection, after: Collection) -> None:
        if (after.encoder.name, after.language) == (before.encoder.name, before.language):
            return
        if await self._catalog.count_documents(tenant, before.id):
            metadata = {"expected": before.encoder.name, "given": after.encoder.name}
            message = "the encoder and the language of a collection with documents are fixed"
            raise FailedPrecondition("ENCODER_MISMATCH", message, metadata=metadata)


def _distinct(declared: Sequence[FilterableField]) -> tuple[FilterableField, ...]:
    if len({each.field for each in declared}) < len(declared):
        raise invalid("collection.filterable_fields", "names a field twice")
    return tuple(declared)


def _stale(collection: Collection) -> Aborted:
    message = "the collection has changed: read it again"
    return Aborted("ETAG_MISMATCH", message, metadata={"etag": collection.etag})
