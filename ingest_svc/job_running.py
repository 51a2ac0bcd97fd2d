"""What a worker does with a job: walk its source, hand over the documents a few at a time, and keep the end."""

import fnmatch
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ingest_svc.cancelling import Cancelling
from ingest_svc.catalog import Catalog, Document, DocumentState
from ingest_svc.failure import Failure
from ingest_svc.intake import document_id
from ingest_svc.jobs import PASSING, Ended, Job, JobState, JobStore, Source, Sources, UnderWay
from ingest_svc.progress import Progress, ProgressBus
from ingest_svc.reindexing import Reindexing
from ingest_svc.taking import Taking
from ingest_svc.work import WorkItem
from meshkit.errors import MeshError, invalid
from meshkit.identity import Identity, acting_as

logger = logging.getLogger(__name__)

_SCOPES = frozenset({"ingest"})
_OPEN = (JobState.PENDING, JobState.RUNNING)
_PAGE = 500
# A class of characters, as fnmatch reads it.
_CLASS = re.compile(r"\[!?+\]?+[^\]]*\]")


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Documents of one job that are queued or worked on at once, and seconds between two looks at its state."""

    max_documents_under_way: int
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
        taking: Taking,
        sources: Sources,
        reindexing: Reindexing,
        bus: ProgressBus,
        cancelling: Cancelling,
        limits: JobLimits,
    ) -> None:
        self._catalog = catalog
        self._jobs = jobs
        self._taking = taking
        self._sources = sources
        self._reindexing = reindexing
        self._bus = bus
        self._cancelling = cancelling
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
            elif await self._jobs.state(item.tenant, job.id) is JobState.SUCCEEDED:
                await self._sources.forget(item.tenant, job.source_uri)

    async def _carry_out(self, tenant: str, job: Job) -> None:
        run = self._run if job.reindex is None else self._reindexing.run
        await self._jobs.change(tenant, job.id, (JobState.PENDING,), JobState.RUNNING)
        try:
            await self._cancelling.guard(tenant, job.id, run(tenant, job))
            await self._jobs.change(tenant, job.id, (JobState.RUNNING,), JobState.SUCCEEDED)
        except Ended:
            return
        except MeshError as error:
            if error.code in PASSING:
                raise
            await self._jobs.change(tenant, job.id, _OPEN, JobState.FAILED, Failure.of(error))

    async def _run(self, tenant: str, job: Job) -> None:
        source = await self._sources.open(tenant, job.source_uri)
        if job.paths:
            await self._look(tenant, job, source)
            return
        entries = [entry async for entry in source.entries()]
        wanted = [entry for entry in entries if selected(entry.path, job.include, job.exclude)]
        await self._jobs.found(tenant, job.id, len(wanted))
        for entry in wanted:
            await self._wait(tenant, job, self._has_room)
            await self._taking.take(tenant, job, source, entry)
        await self._wait(tenant, job, _is_through)
        if job.delete_missing:
            await self._delete_missing(tenant, job, {document_id(entry.uri) for entry in entries})

    async def _look(self, tenant: str, job: Job, source: Source) -> None:
        found = 0
        for path in job.paths:
            await self._wait(tenant, job, self._has_room)
            found += await self._taking.look(tenant, job, source, path)
            await self._jobs.found(tenant, job.id, found)
        await self._wait(tenant, job, _is_through)

    def _has_room(self, under_way: UnderWay) -> bool:
        """Whether another document may be begun: those that wait for vectors take up nothing but disk."""
        return under_way.unread < self._limits.max_documents_under_way

    async def _wait(self, tenant: str, job: Job, enough: Callable[[UnderWay], bool]) -> None:
        """Return when the documents under way are few enough."""
        async with self._bus.watch(tenant, job.name) as watch:
            while True:
                if enough(await self._jobs.under_way(tenant, job.id)):
                    return
                while (moved := await watch.next(self._limits.poll_s)) and not _makes_room(moved):
                    pass

    async def _delete_missing(self, tenant: str, job: Job, present: set[str]) -> None:
        after = ""
        while page := await self._catalog.list_documents(tenant, job.collection, after, _PAGE):
            after = page[-1].id
            for document in page:
                if _came_from(document, job.source_uri) and document.id not in present:
                    await self._taking.delete(tenant, job, document)


def _makes_room(moved: Progress) -> bool:
    """Whether a document was read, or ended."""
    return moved.state.ended or (moved.searchable and moved.state is DocumentState.EMBEDDING)


def _is_through(under_way: UnderWay) -> bool:
    return under_way.all == 0


def selected(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether some pattern of `include` matches the path, or there is none, and none of `exclude` does."""
    return (not include or _matches(path, include)) and not _matches(path, exclude)


def check_patterns(field: str, patterns: Sequence[str]) -> None:
    """Raise INVALID_FIELD for a pattern that matches nothing, or not what it says."""
    for place, pattern in enumerate(patterns):
        if not pattern:
            raise invalid(f"{field}[{place}]", "is empty")
        if "[" in _CLASS.sub("", pattern):
            raise invalid(f"{field}[{place}]", f"{pattern}: a `[` is not closed; `[[]` matches one")


def _came_from(document: Document, source_uri: str) -> bool:
    """Whether a job took the document from the source, or from another that shares its place."""
    return bool(document.source) and f"{document.uri}/".startswith(f"{source_uri.rstrip('/')}/")


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """Shell patterns in which `*` crosses slashes; a leading `**/` also matches no folder at all."""
    return any(
        fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, pattern.removeprefix("**/"))
        for pattern in patterns
    )
