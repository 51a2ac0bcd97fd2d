"""What a worker does with a reindexing: build another index beside the collection's own, and switch to it."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ingest_svc.catalog import Catalog, Collection, Document, DocumentState, Rebuild, now
from ingest_svc.failure import Failure
from ingest_svc.index import Index
from ingest_svc.intake import fingerprint
from ingest_svc.jobs import PASSING, DocumentFailure, Ended, Job, JobState, JobStore, Reindex, Settled
from ingest_svc.pipeline import Pipeline
from ingest_svc.progress import ProgressBus, progress_of
from ingest_svc.retrying import FAULTS, Patience
from ingest_svc.work import Locks, backoff_s
from meshkit import deadline
from meshkit.deadline import Deadline
from meshkit.errors import Aborted, FailedPrecondition, Internal, MeshError, NotFound

logger = logging.getLogger(__name__)

_PAGE = 500
_STANDARD = "standard"


class Reindexing:
    """Runs reindexing jobs; lives as long as its process, nothing to close.

    The collection's record says that an index is being built before its first document is: from then on workers write
    to both, and each document is built under its lock. So what was there before is built here, what comes later by
    them, and the new index is whole when this has been through all documents once. A job that is run again goes on.
    """

    def __init__(
        self,
        catalog: Catalog,
        jobs: JobStore,
        pipeline: Pipeline,
        index: Index,
        locks: Locks,
        bus: ProgressBus,
        patience: Patience,
    ) -> None:
        self._catalog = catalog
        self._jobs = jobs
        self._pipeline = pipeline
        self._index = index
        self._locks = locks
        self._bus = bus
        self._patience = patience

    async def run(self, tenant: str, job: Job) -> None:
        """Build the index and switch to it; raises Ended where the job was cancelled.

        Raises COLLECTION_NOT_FOUND, REINDEX_UNDER_WAY, and what a document fails with that is findable now.
        """
        collection = await self._begun(tenant, job)
        if collection is None:
            return
        if not await self._is_switched(collection):
            await self._build(tenant, job)
        await self._switch(tenant, job)

    async def tidy(self, tenant: str, job: Job) -> None:
        """After the job's end: leave the collection with the index that it has, and none beside it."""
        async with self._locks.hold(tenant, f"collections/{job.collection}", self._patience.lock_wait_s):
            collection = await self._catalog.find_collection(tenant, job.collection)
            if collection is None or not _built_by(collection, job):
                return
            if await self._is_switched(collection):
                await self._keep(tenant, _switched(collection))
            else:
                await self._delete_beside(collection)
                await self._keep(tenant, collection.revised(rebuild=None))

    async def _begun(self, tenant: str, job: Job) -> Collection | None:
        """The collection, with an index beside it; None where there is nothing to build."""
        async with self._locks.hold(tenant, f"collections/{job.collection}", self._patience.lock_wait_s):
            collection = await self._catalog.get_collection(tenant, job.collection)
            if _built_by(collection, job):
                return collection
            await refuse_second(self._jobs, tenant, collection)
            if job.reindex is None or _is_so(collection, job.reindex):
                return None
            rebuild = Rebuild(job=job.id, encoder=job.reindex.encoder, language=job.reindex.language)
            begun = collection.revised(rebuild=rebuild)
            # An earlier job may have left one.
            await self._delete_beside(begun)
            await self._put_beside(begun)
            await self._keep(tenant, begun)
            return begun

    async def _build(self, tenant: str, job: Job) -> None:
        await self._jobs.found(tenant, job.id, await self._catalog.count_documents(tenant, job.collection))
        async with aclosing(self._documents(tenant, job)) as ids:
            async for id in ids:
                await self._check(tenant, job)
                if await self._jobs.begin(tenant, job.id, id):
                    await self._build_document(tenant, job, id)
        failures = (await self._jobs.get(tenant, job.id)).failures
        if failures:
            raise failures[0].failure.error()

    async def _documents(self, tenant: str, job: Job) -> AsyncGenerator[str]:
        after = ""
        while page := await self._catalog.list_documents(tenant, job.collection, after, _PAGE):
            after = page[-1].id
            for document in page:
                yield document.id

    async def _build_document(self, tenant: str, job: Job, id: str) -> None:
        name = f"collections/{job.collection}/documents/{id}"
        async with self._locks.hold(tenant, name, self._patience.lock_wait_s):
            document = await self._catalog.find_document(tenant, job.collection, id)
            collection = await self._catalog.get_collection(tenant, job.collection)
            beside = collection.beside
            if beside is None or not _built_by(collection, job):
                raise Ended
            if document is not None and document.generation and document.standing is not None:
                # Should its newer content fail, this is what stays; else its worker writes that to both indexes.
                document = document.standing
            if document is None or not document.generation or document.state is DocumentState.FAILED:
                settled = Settled(id, "unchanged")
            else:
                settled = await self._built(tenant, beside, document)
            await self._jobs.settle(tenant, job.id, settled)
        if document is not None:
            await self._bus.publish(tenant, progress_of(document, job=job.id))

    async def _built(self, tenant: str, beside: Collection, document: Document) -> Settled:
        try:
            built = await self._with_patience(beside, document)
        except KeyError:
            return _not_built(document, Internal("INTERNAL_ERROR", "the document's bytes are gone"))
        except MeshError as error:
            if error.code in PASSING:
                raise
            return _not_built(document, error)
        if document.state is DocumentState.READY:
            await self._catalog.replace_document(tenant, _rebuilt(document, built, beside), document.generation)
        return Settled(document.id, "ready", built.chunk_count, document.size_bytes)

    async def _with_patience(self, beside: Collection, document: Document) -> Document:
        attempts = 0
        while True:
            attempts += 1
            try:
                with deadline.using(Deadline.after(self._patience.attempt_timeout_s)):
                    return await self._pipeline.run_beside(beside, document)
            except MeshError as error:
                if error.code in PASSING or error.code not in FAULTS or attempts == self._patience.max_attempts:
                    raise
                logger.warning("%s: attempt %d to reindex it failed, will retry: %s", document.name, attempts, error)
                await asyncio.sleep(backoff_s(attempts, self._patience.pace))

    async def _switch(self, tenant: str, job: Job) -> None:
        async with self._locks.hold(tenant, f"collections/{job.collection}", self._patience.lock_wait_s):
            collection = await self._catalog.get_collection(tenant, job.collection)
            if not _built_by(collection, job):
                return
            if not await self._is_switched(collection):
                await self._check(tenant, job)
                # Settings that were changed meanwhile.
                beside = await self._put_beside(collection)
                await self._put_in_place(collection, beside)
            await self._keep(tenant, _switched(collection))

    async def _put_in_place(self, collection: Collection, beside: Collection) -> None:
        try:
            await self._index.switch(collection.name, beside.name)
        except NotFound:
            # Done by a call before this one, whose answer got lost.
            if not await self._is_switched(collection):
                raise

    async def _is_switched(self, collection: Collection) -> bool:
        """Whether the collection's own index is the one that was built, though its record does not say so yet."""
        stats, rebuild = await self._index.stats(collection.name), collection.rebuild
        if rebuild is None:
            return True
        return (stats.encoder, stats.language) == (rebuild.encoder.name, rebuild.language or _STANDARD)

    async def _put_beside(self, collection: Collection) -> Collection:
        beside = collection.beside
        if beside is None:
            raise Ended
        await self._index.put(beside)
        return beside

    async def _delete_beside(self, collection: Collection) -> None:
        if (beside := collection.beside) is not None:
            await self._index.delete(beside.name)

    async def _keep(self, tenant: str, collection: Collection) -> None:
        if not await self._catalog.replace_collection(tenant, collection):
            message = "the collection has changed: it is read again"
            raise Aborted("ETAG_MISMATCH", message, metadata={"etag": collection.etag})

    async def _check(self, tenant: str, job: Job) -> None:
        if await self._jobs.state(tenant, job.id) is not JobState.RUNNING:
            raise Ended


async def refuse_second(jobs: JobStore, tenant: str, collection: Collection) -> None:
    """Raise REINDEX_UNDER_WAY where a job that has not ended reindexes the collection."""
    if collection.rebuild is None:
        return
    state = await jobs.state(tenant, collection.rebuild.job)
    if state is not None and not state.ended:
        metadata = {"job": f"jobs/{collection.rebuild.job}"}
        raise FailedPrecondition("REINDEX_UNDER_WAY", f"{collection.name} is being reindexed", metadata=metadata)


def _is_so(collection: Collection, reindex: Reindex) -> bool:
    same_language = (collection.language or _STANDARD) == (reindex.language or _STANDARD)
    return same_language and collection.encoder.name == reindex.encoder.name


def _built_by(collection: Collection, job: Job) -> bool:
    return collection.rebuild is not None and collection.rebuild.job == job.id


def _not_built(document: Document, error: MeshError) -> Settled:
    """What became of a document that fails: one that is not findable now is for its own worker to fail."""
    if document.state is not DocumentState.READY:
        return Settled(document.id, "unchanged")
    logger.warning("%s cannot be reindexed: %s", document.name, error)
    failure = DocumentFailure(uri=document.uri, document=document.name, failure=Failure.of(error))
    return Settled(document.id, "failed", failure=failure)


def _switched(collection: Collection) -> Collection:
    """The collection with the index that was built as its own."""
    rebuild = collection.rebuild
    if rebuild is None:
        return collection
    return collection.revised(encoder=rebuild.encoder, language=rebuild.language, rebuild=None, update_time=now())


def _rebuilt(document: Document, built: Document, beside: Collection) -> Document:
    """The record with what the other encoder makes of the document."""
    values = {"chunk_count": built.chunk_count, "token_count": built.token_count, "warnings": built.warnings}
    return document.changed(**values, fingerprint=fingerprint(document, beside.encoder.name))
