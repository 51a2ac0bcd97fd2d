"""How documents come along, told to whoever watches on any replica."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ingest_svc.catalog import Document, DocumentState, Record, now
from ingest_svc.failure import Failure
from ingest_svc.jobs import Reached
from ingest_svc.work import WorkItem


class Progress(Record):
    """How far a document has come; `generation` tells it from others given under the same name."""

    document: str
    generation: str
    state: DocumentState
    upload_id: str = ""
    bytes_received: int = 0
    chunks_done: int = 0
    chunks_total: int = 0
    elapsed_s: float = 0.0
    failure: Failure | None = None
    unchanged: bool = False
    page_count: int = 0
    searchable: bool = False
    job: str = ""


class Watch(Protocol):
    """The progress published since it was opened, the oldest dropped where nobody takes it."""

    async def next(self, timeout_s: float) -> Progress | None:
        """The next progress, or None when `timeout_s` has passed without any."""


class ProgressBus(Protocol):
    """Carries progress from who works to who watches. It may lose some: watchers also look at the records."""

    async def publish(self, tenant: str, progress: Progress) -> None:
        """Tell the watchers of the document and those of its job."""

    def watch(self, tenant: str, name: str) -> AbstractAsyncContextManager[Watch]:
        """Watch a document or a job by its name."""


class Telling(Protocol):
    """Keeps how far a document has come, and tells it."""

    async def tell(self, item: WorkItem, document: Document, progress: Progress, reached: Reached | None) -> bool:
        """Keep the document in place of the item's generation, note its stage with the job, tell the watchers.

        All or, where another generation is kept, nothing: then False.
        """


def progress_of(document: Document, *, job: str = "", chunks_done: int | None = None) -> Progress:
    """The progress that a document's record shows."""
    written = document.chunk_count if document.state is DocumentState.READY else 0
    return Progress(
        document=document.name,
        generation=document.generation,
        state=document.state,
        bytes_received=document.size_bytes,
        chunks_done=written if chunks_done is None else chunks_done,
        chunks_total=document.chunk_count,
        elapsed_s=max((now() - document.stored_time).total_seconds(), 0.0),
        failure=document.failure,
        page_count=document.page_count,
        searchable=document.searchable_time is not None and document.failure is None,
        job=job,
    )
