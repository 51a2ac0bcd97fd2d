"""Jobs: many documents at once, from a folder, or all of a collection once more."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, Protocol

from ingest_svc.catalog import EncoderCard, Record, Request, now
from ingest_svc.chunking import Chunking
from ingest_svc.failure import Failure
from meshkit.errors import InvalidArgument

# Codes of what something that is away or busy fails with: the job waits for it.
PASSING = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "DEADLINE_EXCEEDED")

SettledAs = Literal["ready", "unchanged", "failed"]


class JobState(StrEnum):
    """How far a job has come."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        return self not in (JobState.PENDING, JobState.RUNNING)


class JobCounts(Record):
    """What became of a job's documents."""

    found: int = 0
    ready: int = 0
    unchanged: int = 0
    failed: int = 0
    deleted: int = 0
    chunks: int = 0
    bytes: int = 0
    searchable: int = 0
    pages: int = 0
    without_text: int = 0

    @property
    def settled(self) -> int:
        return self.ready + self.unchanged + self.failed


class StageCounts(Record):
    """Documents of a job by the stage that they are in now, those that are being parsed or wait for it left out."""

    chunk: int = 0
    embed: int = 0
    index: int = 0


class StageProgress(Record):
    """A stage of a job: the documents that are in it or wait for it, and those that have passed it."""

    stage: str
    documents: int
    done: int


class DocumentFailure(Record):
    """A document of a job that failed."""

    uri: str
    document: str = ""
    failure: Failure


class Reindex(Record):
    """What a collection is reindexed for."""

    encoder: EncoderCard
    language: str


class Job(Record):
    """An ingestion or, with `reindex`, a reindexing; counts and failures are kept beside it, filled in when read.

    With `paths`, these files of the source alone are looked at: those there are taken in, others' documents deleted.
    """

    id: str
    collection: str
    subject: str
    source_uri: str = ""
    reindex: Reindex | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    chunking: Chunking
    delete_missing: bool = False
    state: JobState = JobState.PENDING
    failure: Failure | None = None
    create_time: datetime
    end_time: datetime | None = None
    counts: JobCounts = JobCounts()
    in_stages: StageCounts = StageCounts()
    failures: tuple[DocumentFailure, ...] = ()

    @property
    def name(self) -> str:
        return f"jobs/{self.id}"

    def remaining(self) -> timedelta | None:
        """How long it may still take, by its pace so far; None where that is not known."""
        done, left = self.counts.settled, self.counts.found - self.counts.settled
        if self.state is not JobState.RUNNING or not done:
            return None
        return (now() - self.create_time) / done * left

    def chunks_per_s(self) -> float:
        """Chunks made ready a second, from its start to now or its end."""
        took_s = ((self.end_time or now()) - self.create_time).total_seconds()
        return self.counts.chunks / took_s if took_s > 0 else 0.0

    def stages(self) -> list[StageProgress]:
        """How its stages go, in their order; none once it has ended, or before it has found its documents."""
        if self.state is not JobState.RUNNING or not self.counts.found:
            return []
        later = [self.in_stages.index, self.in_stages.embed, self.in_stages.chunk]
        parsing = self.counts.found - self.counts.settled - sum(later)
        done, found = self.counts.ready, []
        for stage, documents in zip(("index", "embed", "chunk", "parse"), [*later, parsing], strict=True):
            found.append(StageProgress(stage=stage, documents=max(documents, 0), done=done))
            done += documents
        return found[::-1]


class Ended(Exception):
    """The job is no longer running."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of one of a job's documents."""

    key: str
    outcome: SettledAs
    chunks: int = 0
    bytes: int = 0
    pages: int = 0
    failure: DocumentFailure | None = None

    @property
    def without_text(self) -> bool:
        """Whether nothing of it is missing, as it has no text."""
        return self.failure is not None and self.failure.failure.without_text


@dataclass(frozen=True, slots=True)
class Reached:
    """The stage (`parse`, `chunk`, `embed` or `index`) that one of a job's documents is in now.

    `read`: its chunks are kept, so that it takes up no memory; `searchable`: it is found by its words.
    """

    key: str
    stage: str
    read: bool
    searchable: bool


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Documents of a job that were begun and have not ended: those not read yet, and all."""

    unread: int
    all: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a source: its path below it, its URI, its bytes as listed.

    `version` changes whenever the content does; "" where that cannot be told without reading it.
    """

    path: str
    uri: str
    size: int
    version: str


class Source(Protocol):
    """A folder or prefix that documents are read from, or a lone file."""

    def entries(self) -> AsyncGenerator[Entry]:
        """All its files, in an order that stays the same; links that lead out of it are left out.

        Raises SOURCE_NOT_READABLE, STORE_UNAVAILABLE, and TOO_LARGE where there are more than a job may have.
        """

    def uri(self, path: str) -> str:
        """The URI of the file at a path below it, whether or not there is one."""

    async def find(self, path: str) -> Entry | None:
        """The file at a path, as `entries` has it; None where there is none. Raises as `entries` does."""

    def read(self, entry: Entry, part_bytes: int) -> AsyncGenerator[bytes]:
        """A file's bytes in parts of about `part_bytes`; close it where it may be left early.

        Raises SOURCE_NOT_READABLE where it has gone, STORE_UNAVAILABLE.
        """


class Sources(Protocol):
    """The places that jobs may read."""

    async def open(self, tenant: str, uri: str) -> Source:
        """What is at `uri`; raises SOURCE_NOT_READABLE where nothing is, or nothing that the tenant may read."""

    async def forget(self, tenant: str, uri: str) -> None:
        """Remove what was put at `uri` for one job alone, now that the job has it; other places stay as they are."""


class JobStore(Protocol):
    """Keeps each tenant's jobs; every method raises STORE_UNAVAILABLE where it is away."""

    async def start(self, tenant: str, job: Job, request: Request | None) -> str:
        """Keep a new job and queue it, both or neither; its id, or that of the job the request made before.

        Raises REQUEST_ID_REUSED for another request under the same id, OVERLOADED where the tenant has too many.
        """

    async def started_by(self, tenant: str, request: Request) -> str:
        """The id of the job that the request started, or ""; raises REQUEST_ID_REUSED for another request."""

    async def get(self, tenant: str, id: str) -> Job:
        """The job with its counts and failures; raises JOB_NOT_FOUND."""

    async def state(self, tenant: str, id: str) -> JobState | None:
        """Its state; None where there is no such job."""

    async def list(self, tenant: str, after: str, limit: int) -> Sequence[Job]:
        """Jobs by id, newest first, those behind the id `after`."""

    async def change(
        self, tenant: str, id: str, states: Sequence[JobState], to: JobState, failure: Failure | None = None
    ) -> bool:
        """Move a job from one of `states`; False where it is in another."""

    async def found(self, tenant: str, id: str, files: int) -> None: ...

    async def deleted(self, tenant: str, id: str) -> None:
        """Count one more document deleted."""

    async def begin(self, tenant: str, id: str, key: str) -> bool:
        """Count the document `key` among those under way; False where it has been settled, or read at least."""

    async def reach(self, tenant: str, id: str, reached: Reached) -> None:
        """Note the stage that a document is in; one that was settled stays so."""

    async def under_way(self, tenant: str, id: str) -> UnderWay: ...

    async def settle(self, tenant: str, id: str, settled: Settled) -> None:
        """Count what became of a document, once however often it is said."""


def not_readable(uri: str) -> InvalidArgument:
    """The one answer for a source that is not there, or not allowed."""
    message = "the source does not exist, or is outside the places that this mesh may read"
    return InvalidArgument("SOURCE_NOT_READABLE", message, metadata={"uri": uri})


def too_many_files(limit: int) -> InvalidArgument:
    """The answer for a source with more files than a job may have."""
    metadata = {"limit_files": str(limit)}
    return InvalidArgument("TOO_LARGE", "the source has too many files", metadata=metadata)
