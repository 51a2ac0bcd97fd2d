"""Starting jobs and watching them."""

import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from ingest_svc.catalog import Catalog, Request, now
from ingest_svc.chunking import Strategies
from ingest_svc.encoder import Encoder, describe
from ingest_svc.job_running import check_patterns
from ingest_svc.jobs import Job, JobStore, Reindex, Sources
from ingest_svc.progress import Progress, ProgressBus
from ingest_svc.reindexing import refuse_second

# Reading a job takes longer than telling how one of its documents moves.
_FRESH_S = 0.2


@dataclass(frozen=True, slots=True)
class JobOrder:
    """A job as asked for; `chunking` is a strategy's name and parameters, or None for the collection's.

    With `paths`, it looks at these files of the source alone.
    """

    collection: str
    source_uri: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    chunking: tuple[str, Mapping[str, Any]] | None = None
    delete_missing: bool = False
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReindexOrder:
    """A reindexing as asked for: the encoder by name, "" for the default; the language, "" for the collection's."""

    collection: str
    encoder: str
    language: str


class JobDesk:
    """Starts jobs and tells how they go; lives as long as its process, nothing to close."""

    def __init__(
        self,
        catalog: Catalog,
        jobs: JobStore,
        sources: Sources,
        encoder: Encoder,
        strategies: Strategies,
        bus: ProgressBus,
        poll_s: float,
    ) -> None:
        self._catalog = catalog
        self._jobs = jobs
        self._sources = sources
        self._encoder = encoder
        self._strategies = strategies
        self._bus = bus
        self._poll_s = poll_s

    async def start(self, tenant: str, subject: str, order: JobOrder, request: Request | None) -> Job:
        """Queue a job, or find the one that the request started before.

        Raises COLLECTION_NOT_FOUND, SOURCE_NOT_READABLE, STRATEGY_NOT_FOUND, INVALID_FIELD, REQUEST_ID_REUSED or
        OVERLOADED.
        """
        check_patterns("include", order.include)
        check_patterns("exclude", order.exclude)
        collection = await self._catalog.get_collection(tenant, order.collection)
        await self._sources.open(tenant, order.source_uri)
        chunking = collection.chunking
        if order.chunking is not None:
            chunking = self._strategies.resolve(*order.chunking)
        job = Job(
            id=_job_id(),
            collection=order.collection,
            subject=subject,
            source_uri=order.source_uri,
            include=order.include,
            exclude=order.exclude,
            paths=order.paths,
            chunking=chunking,
            delete_missing=order.delete_missing,
            create_time=now(),
        )
        return await self._jobs.get(tenant, await self._jobs.start(tenant, job, request))

    async def reindex(self, tenant: str, subject: str, order: ReindexOrder, request: Request | None) -> Job:
        """Queue a reindexing, or find the one that the request started before.

        Raises COLLECTION_NOT_FOUND, MODEL_NOT_FOUND, REINDEX_UNDER_WAY, REQUEST_ID_REUSED or OVERLOADED.
        """
        if request is not None and (started := await self._jobs.started_by(tenant, request)):
            return await self._jobs.get(tenant, started)
        collection = await self._catalog.get_collection(tenant, order.collection)
        await refuse_second(self._jobs, tenant, collection)
        card = await describe(self._encoder, order.encoder)
        job = Job(
            id=_job_id(),
            collection=order.collection,
            subject=subject,
            reindex=Reindex(encoder=card, language=order.language or collection.language),
            chunking=collection.chunking,
            create_time=now(),
        )
        return await self._jobs.get(tenant, await self._jobs.start(tenant, job, request))

    async def watch(self, tenant: str, id: str) -> AsyncGenerator[tuple[Job, Progress | None]]:
        """The job at once, then with each document that moves, and at last as it ended; raises JOB_NOT_FOUND.

        Its counts are some moments old where many documents move at once.
        """
        name = f"jobs/{id}"
        async with self._bus.watch(tenant, name) as watch:
            shown = await self._jobs.get(tenant, id)
            yield shown, None
            read_s, stale = time.monotonic(), False
            while not shown.state.ended:
                progress = await watch.next(_FRESH_S if stale else self._poll_s)
                job, stale = shown, time.monotonic() < read_s + _FRESH_S and progress is not None
                if not stale:
                    job, read_s = await self._jobs.get(tenant, id), time.monotonic()
                if progress is not None or job != shown:
                    yield job, progress if not job.state.ended else None
                shown = job


def _job_id() -> str:
    """An id that sorts by the time of its making."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(5)}"
