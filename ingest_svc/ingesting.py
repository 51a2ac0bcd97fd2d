"""What a worker does with a queued document: take it to the index, try again where something is away, keep the end."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta

from ingest_svc.catalog import Catalog, Collection, Document, DocumentState, now
from ingest_svc.failure import Failure
from ingest_svc.index import Index, delete_everywhere
from ingest_svc.jobs import DocumentFailure, JobState, JobStore, Settled
from ingest_svc.pipeline import Pipeline, Report
from ingest_svc.progress import ProgressBus, progress_of
from ingest_svc.work import Locks, Pace, WorkItem, backoff_s
from meshkit import deadline
from meshkit.deadline import Deadline
from meshkit.errors import Aborted, Cancelled, Internal, MeshError
from meshkit.identity import Identity, acting_as

logger = logging.getLogger(__name__)

_SCOPES = frozenset({"ingest"})
# Something is away or busy: the document is not to blame, and it is tried for as long as `retry_for_s`.
_AWAY = ("UNAVAILABLE", "ABORTED")
# What writing to an index that was switched meanwhile fails with, or encoding for it.
_SWITCHED = ("ENCODER_MISMATCH", "MODEL_NOT_FOUND", "COLLECTION_NOT_FOUND")
# Nobody knows whether the document is to blame: `max_attempts` decide.
FAULTS = ("INTERNAL", "DEADLINE_EXCEEDED", "CANCELLED", "DATA_LOSS")


@dataclass(frozen=True, slots=True)
class Patience:
    """Bounds of the work on one document."""

    attempt_timeout_s: float
    max_attempts: int
    retry_for_s: float
    lock_wait_s: float


class Superseded(Exception):
    """The work on a document is no longer wanted."""


class Ingesting:
    """Handles queued documents, each under its lock; lives as long as its process, nothing to close."""

    def __init__(
        self,
        catalog: Catalog,
        jobs: JobStore,
        pipeline: Pipeline,
        index: Index,
        locks: Locks,
        bus: ProgressBus,
        patience: Patience,
        pace: Pace,
    ) -> None:
        self._catalog = catalog
        self._jobs = jobs
        self._pipeline = pipeline
        self._index = index
        self._locks = locks
        self._bus = bus
        self._patience = patience
        self._pace = pace

    async def __call__(self, item: WorkItem) -> None:
        """Take the item's document to its end; raises only where nothing about it could be kept."""
        name = f"collections/{item.collection}/documents/{item.document}"
        with acting_as(Identity(item.tenant, item.subject, _SCOPES)):
            async with self._locks.hold(item.tenant, name, self._patience.lock_wait_s):
                ended = await self._ended(item)
            if item.job:
                await self._jobs.settle(item.tenant, item.job, _settled(item, ended))
            if ended is not None:
                await self._bus.publish(item.tenant, progress_of(ended, job=item.job))

    async def _ended(self, item: WorkItem) -> Document | None:
        """The document's end; None where the item is about a content that is no longer its."""
        document = await self._catalog.find_document(item.tenant, item.collection, item.document)
        if document is None or document.generation != item.generation:
            return None
        if document.state.ended:
            return document
        if item.job and await self._jobs.state(item.tenant, item.job) is JobState.CANCELLED:
            ended = _failed(document, Cancelled("CANCELLED", "its job was cancelled"))
        else:
            try:
                ended = await self._with_patience(item, document)
            except Superseded:
                return None
        return ended if await self._keep(item, ended) else None

    async def _with_patience(self, item: WorkItem, document: Document) -> Document:
        attempts = faults = 0
        while True:
            attempts += 1
            error = await self._attempt(item, document)
            if isinstance(error, Document):
                return error
            faults += error.code in FAULTS
            if not self._worth_another(error, faults, document):
                return _failed(document, error)
            logger.warning("%s: attempt %d failed, will retry: %s", document.name, attempts, error)
            await asyncio.sleep(backoff_s(attempts, self._pace))

    async def _attempt(self, item: WorkItem, document: Document) -> Document | MeshError:
        """The document, ready, or why this attempt failed."""
        collection = await self._collection(item)

        async def report(changed: Document, chunks_done: int) -> None:
            if not await self._catalog.replace_document(item.tenant, changed, item.generation):
                raise Superseded
            progress = progress_of(changed, job=item.job, chunks_done=chunks_done)
            await self._bus.publish(item.tenant, progress)

        try:
            with deadline.using(Deadline.after(self._patience.attempt_timeout_s)):
                return await self._indexed(collection, document, report)
        except Superseded:
            raise
        except KeyError:
            current = await self._catalog.find_document(item.tenant, item.collection, item.document)
            if current is None or current.generation != document.generation:
                raise Superseded from None
            return Internal("INTERNAL_ERROR", "the document's bytes are gone")
        except MeshError as error:
            await self._raise_if_switching(item, collection, error)
            return error
        except Exception:
            logger.exception("%s: unexpected error", document.name)
            return Internal("INTERNAL_ERROR", "internal error")

    async def _collection(self, item: WorkItem) -> Collection:
        collection = await self._catalog.find_collection(item.tenant, item.collection)
        if collection is None:
            raise Superseded
        return collection

    async def _indexed(self, collection: Collection, document: Document, report: Report) -> Document:
        ready = await self._pipeline.run(collection, document, report)
        if (beside := collection.beside) is not None:
            await self._pipeline.run_beside(beside, document)
        return ready

    async def _raise_if_switching(self, item: WorkItem, seen: Collection, error: MeshError) -> None:
        """Raise Aborted for an error that comes of the index being switched, now or since the collection was seen.

        It ends the work on the item, whose lock the job that switches may want; the next worker finds another index.
        """
        kept = await self._catalog.find_collection(item.tenant, item.collection)
        if kept is None or error.reason not in _SWITCHED:
            return
        if seen.rebuild or kept.rebuild or kept.encoder != seen.encoder:
            message = f"the index of {kept.name} is being switched"
            raise Aborted("ETAG_MISMATCH", message, metadata={"etag": kept.etag}) from error

    def _worth_another(self, error: MeshError, faults: int, document: Document) -> bool:
        waited = now() - document.stored_time
        if waited > timedelta(seconds=self._patience.retry_for_s):
            return False
        if error.code in FAULTS:
            return faults < self._patience.max_attempts
        return error.code in _AWAY or error.reason == "OVERLOADED"

    async def _keep(self, item: WorkItem, ended: Document) -> bool:
        """Keep the end; False where the document changed meanwhile. What a deleted one left in the index goes too."""
        if await self._catalog.replace_document(item.tenant, ended, item.generation):
            return True
        current = await self._catalog.find_document(item.tenant, item.collection, item.document)
        if current is None:
            collection = await self._catalog.find_collection(item.tenant, item.collection)
            await delete_everywhere(self._index, collection, ended)
        return False


def _failed(document: Document, error: MeshError) -> Document:
    return document.changed(state=DocumentState.FAILED, failure=Failure.of(error))


def _settled(item: WorkItem, ended: Document | None) -> Settled:
    if ended is None:
        error = Aborted("CANCELLED", "the document was changed or deleted meanwhile")
        name = f"collections/{item.collection}/documents/{item.document}"
        failure = DocumentFailure(uri="", document=name, failure=Failure.of(error))
        return Settled(item.document, "failed", failure=failure)
    if ended.failure is not None:
        failure = DocumentFailure(uri=ended.uri, document=ended.name, failure=ended.failure)
        return Settled(item.document, "failed", bytes=ended.size_bytes, failure=failure)
    return Settled(item.document, "ready", ended.chunk_count, ended.size_bytes)
