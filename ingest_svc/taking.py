"""A source's files on their way in: read into the store and accepted as documents, or deleted where they have gone."""

from contextlib import aclosing, suppress

from ingest_svc.catalog import Catalog, Document
from ingest_svc.failure import Failure
from ingest_svc.intake import Accepted, Head, Intake, Origin, document_id
from ingest_svc.jobs import PASSING, DocumentFailure, Entry, Job, JobStore, Settled, Source
from ingest_svc.objects import ObjectStore, Upload
from ingest_svc.progress import ProgressBus, progress_of
from ingest_svc.threads import to_its_end
from ingest_svc.work import Locks
from meshkit.errors import MeshError, NotFound


class Taking:
    """Takes files in for jobs, each under a lock, so that of two readings the later one stays; nothing to close."""

    def __init__(
        self,
        catalog: Catalog,
        jobs: JobStore,
        intake: Intake,
        objects: ObjectStore,
        locks: Locks,
        bus: ProgressBus,
        part_bytes: int,
    ) -> None:
        self._catalog = catalog
        self._jobs = jobs
        self._intake = intake
        self._objects = objects
        self._locks = locks
        self._bus = bus
        self._part_bytes = part_bytes

    async def take(self, tenant: str, job: Job, source: Source, entry: Entry) -> None:
        """Take a file in, once for a job; what is wrong with it is kept with the job.

        Raises where something is away.
        """
        key = document_id(entry.uri)
        async with self._locks.hold(tenant, _lock(job, key), self._intake.limits.lock_wait_s):
            await self._take(tenant, job, source, entry)

    async def look(self, tenant: str, job: Job, source: Source, path: str) -> bool:
        """Take the file at `path` in as `take` does or, where there is none, delete its document; whether there is one.

        It goes by what is there now, so that news of a file may come late, twice or in any order.
        """
        uri = source.uri(path)
        id = document_id(uri)
        async with self._locks.hold(tenant, _lock(job, id), self._intake.limits.lock_wait_s):
            entry = await source.find(path)
            if entry is not None:
                await self._take(tenant, job, source, entry)
                return True
            document = await self._catalog.find_document(tenant, job.collection, id)
            if document is not None and document.source and document.uri == uri:
                await self.delete(tenant, job, document)
            return False

    async def delete(self, tenant: str, job: Job, document: Document) -> None:
        """Delete a document and count it with the job, unless another call was faster."""
        with suppress(NotFound):
            await self._intake.delete(tenant, job.collection, document.id)
            await self._jobs.deleted(tenant, job.id)

    async def _take(self, tenant: str, job: Job, source: Source, entry: Entry) -> None:
        key = document_id(entry.uri)
        if not await self._jobs.begin(tenant, job.id, key):
            return
        try:
            accepted = await self._accept(tenant, job, source, entry)
        except MeshError as error:
            if error.code in PASSING or error.reason == "COLLECTION_NOT_FOUND":
                raise
            failure = DocumentFailure(uri=entry.uri, failure=Failure.of(error))
            await self._jobs.settle(tenant, job.id, Settled(key, "failed", failure=failure))
            return
        if accepted.unchanged:
            await self._settle(tenant, job, accepted.document)

    async def _accept(self, tenant: str, job: Job, source: Source, entry: Entry) -> Accepted:
        self._intake.check_size(entry.size)
        chunking = (job.chunking.strategy, job.chunking.parameters)
        admitted = await self._intake.admit(tenant, Head(job.collection, uri=entry.uri, chunking=chunking))
        origin = Origin(tenant, job.subject, job.id, job.source_uri, entry.version)
        indexed = await self._intake.indexed(origin, admitted)
        if indexed is not None:
            return Accepted(indexed, unchanged=True)
        async with self._objects.open_upload(tenant) as upload:
            try:
                await self._read(source, entry, upload)
            except BaseException:
                await upload.discard()
                raise
            # Cut off in the middle, it would leave bytes that no document has.
            return await to_its_end(self._intake.accept(origin, admitted, upload))

    async def _read(self, source: Source, entry: Entry, upload: Upload) -> None:
        async with aclosing(source.read(entry, self._part_bytes)) as parts:
            async for part in parts:
                self._intake.check_size(upload.size + len(part))
                await upload.append(part)

    async def _settle(self, tenant: str, job: Job, document: Document) -> None:
        # A job that is run again finds what it indexed itself the first time.
        outcome = "ready" if document.job == job.id else "unchanged"
        chunks = document.chunk_count if outcome == "ready" else 0
        settled = Settled(document.id, outcome, chunks, document.size_bytes)  # type: ignore[arg-type]
        await self._jobs.settle(tenant, job.id, settled)
        await self._bus.publish(tenant, progress_of(document, job=job.id))


def _lock(job: Job, document: str) -> str:
    return f"sources/{job.collection}/{document}"
