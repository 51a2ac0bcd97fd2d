"""What a worker does with a job: walk its source, hand over the documents a few at a time, and keep the end."""

import fnmatch
import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ingest_svc.catalog import Catalog, Document
from ingest_svc.failure import Failure
from ingest_svc.intake import Head, Intake, Origin, document_id
from ingest_svc.jobs import PASSING, DocumentFailure, Ended, Entry, Job, JobState, JobStore, Settled, Source, Sources
from ingest_svc.objects import ObjectStore
from ingest_svc.progress import ProgressBus, progress_of
from ingest_svc.reindexing import Reindexing
from ingest_svc.work import WorkItem
from meshkit.errors import MeshError
from meshkit.identity import Identity, acting_as

logger = logging.getLogger(__name__)

_SCOPES = frozenset({"ingest"})
_OPEN = (JobState.PENDING, JobState.RUNNING)
_PAGE = 500


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Documents of one job under way at once, bytes read at once, and seconds between two looks at its state."""

    max_documents_under_way: int
    part_bytes: int
    poll_s: float


class JobRunning:
    """Runs queued jobs; lives as long as its process, nothing to close.

    A job whose worker died is run again from the start: documents that were settled are passed over, and those whose
    bytes are indexed cost no more than the reading.
    """

    def __init__(
        self,
        catalog: Catalog,
        jobs: JobStore,
        intake: Intake,
        objects: ObjectStore,
        sources: Sources,
        reindexing: Reindexing,
        bus: ProgressBus,
        limits: JobLimits,
    ) -> None:
        self._catalog = catalog
        self._jobs = jobs
        self._intake = intake
        self._objects = objects
        self._sources = sources
        self._reindexing = reindexing
        self._bus = bus
        self._limits = limits

    async def __call__(self, item: WorkItem) -> None:
        """Run the item's job to its end; raises only where something is away."""
        try:
            job = await self._jobs.get(item.tenant, item.job)
        except MeshError as error:
            if error.code == "NOT_FOUND":
                return
            raise
        with acting_as(Identity(item.tenant, item.subject, _SCOPES)):
            if not job.state.ended:
                await self._carry_out(item.tenant, job)
            if job.reindex is not None:
                await self._reindexing.tidy(item.tenant, job)

    async def _carry_out(self, tenant: str, job: Job) -> None:
        run = self._run if job.reindex is None else self._reindexing.run
        await self._jobs.change(tenant, job.id, (JobState.PENDING,), JobState.RUNNING)
        try:
            await run(tenant, job)
            await self._jobs.change(tenant, job.id, (JobState.RUNNING,), JobState.SUCCEEDED)
        except Ended:
            return
        except MeshError as error:
            if error.code in PASSING:
                raise
            await self._jobs.change(tenant, job.id, _OPEN, JobState.FAILED, Failure.of(error))

    async def _run(self, tenant: str, job: Job) -> None:
        source = await self._sources.open(tenant, job.source_uri)
        entries = [entry async for entry in source.entries()]
        wanted = [entry for entry in entries if selected(entry.path, job.include, job.exclude)]
        await self._jobs.found(tenant, job.id, len(wanted))
        for entry in wanted:
            await self._wait(tenant, job, self._limits.max_documents_under_way - 1)
            await self._take(tenant, job, source, entry)
        await self._wait(tenant, job, 0)
        if job.delete_missing:
            await self._delete_missing(tenant, job, {document_id(entry.uri) for entry in entries})

    async def _wait(self, tenant: str, job: Job, most: int) -> None:
        """Return when at most so many documents are under way; raises Ended where the job was cancelled."""
        async with self._bus.watch(tenant, job.name) as watch:
            while True:
                if await self._jobs.state(tenant, job.id) is not JobState.RUNNING:
                    raise Ended
                if await self._jobs.under_way(tenant, job.id) <= most:
                    return
                await watch.next(self._limits.poll_s)

    async def _take(self, tenant: str, job: Job, source: Source, entry: Entry) -> None:
        key = document_id(entry.uri)
        if not await self._jobs.begin(tenant, job.id, key):
            return
        try:
            await self._accept(tenant, job, source, entry)
        except MeshError as error:
            if error.code in PASSING or error.reason == "COLLECTION_NOT_FOUND":
                raise
            failure = DocumentFailure(uri=entry.uri, failure=Failure.of(error))
            await self._jobs.settle(tenant, job.id, Settled(key, "failed", failure=failure))

    async def _accept(self, tenant: str, job: Job, source: Source, entry: Entry) -> None:
        self._intake.check_size(entry.size)
        chunking = (job.chunking.strategy, job.chunking.parameters)
        admitted = await self._intake.admit(tenant, Head(job.collection, uri=entry.uri, chunking=chunking))
        async with self._objects.open_upload(tenant) as upload:
            try:
                async with aclosing(source.read(entry, self._limits.part_bytes)) as parts:
                    async for part in parts:
                        self._intake.check_size(upload.size + len(part))
                        await upload.append(part)
            except MeshError:
                await upload.discard()
                raise
            origin = Origin(tenant, job.subject, job.id, job.source_uri)
            accepted = await self._intake.accept(origin, admitted, upload)
        if accepted.unchanged:
            document = accepted.document
            # A job that is run again finds what it indexed itself the first time.
            outcome = "ready" if document.job == job.id else "unchanged"
            chunks = document.chunk_count if outcome == "ready" else 0
            settled = Settled(document.id, outcome, chunks, document.size_bytes)  # type: ignore[arg-type]
            await self._jobs.settle(tenant, job.id, settled)
            await self._bus.publish(tenant, progress_of(document, job=job.id))

    async def _delete_missing(self, tenant: str, job: Job, present: set[str]) -> None:
        after = ""
        while page := await self._catalog.list_documents(tenant, job.collection, after, _PAGE):
            after = page[-1].id
            for document in page:
                if _came_from(document, job.source_uri) and document.id not in present:
                    await self._intake.delete(tenant, job.collection, document.id)
                    await self._jobs.deleted(tenant, job.id)


def selected(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether some pattern of `include` matches the path, or there is none, and none of `exclude` does."""
    return (not include or _matches(path, include)) and not _matches(path, exclude)


def _came_from(document: Document, source_uri: str) -> bool:
    """Whether a job took the document from the source, or from another that shares its place."""
    return bool(document.source) and f"{document.uri}/".startswith(f"{source_uri.rstrip('/')}/")


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """Shell patterns in which `*` crosses slashes; a leading `**/` also matches no folder at all."""
    return any(
        fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, pattern.removeprefix("**/"))
        for pattern in patterns
    )
