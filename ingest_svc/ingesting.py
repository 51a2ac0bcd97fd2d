"""What a worker does with a queued document: read it, let it be found by its words, encode it, keep the end."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ingest_svc.budget import Budget
from ingest_svc.catalog import Catalog, Collection, Document, DocumentState, FailedReplacement
from ingest_svc.course import Course
from ingest_svc.failure import Failure
from ingest_svc.index import Index, delete_everywhere
from ingest_svc.jobs import DocumentFailure, JobStore, Reached, Settled
from ingest_svc.kept_chunks import Cut
from ingest_svc.pipeline import Pipeline
from ingest_svc.progress import ProgressBus, Telling, progress_of
from ingest_svc.retrying import Attempts, Superseded, Switching
from ingest_svc.work import Lane, Locks, WorkItem, WorkQueue
from meshkit.errors import Aborted, Internal, MeshError
from meshkit.identity import Identity, acting_as

logger = logging.getLogger(__name__)

_SCOPES = frozenset({"ingest"})
# What writing to an index that was switched meanwhile fails with, or encoding for it.
_SWITCHED = ("ENCODER_MISMATCH", "MODEL_NOT_FOUND", "COLLECTION_NOT_FOUND")
# The stages of a job, by the states of the documents in them.
_STAGES = {
    DocumentState.PARSING: "parse",
    DocumentState.CHUNKING: "chunk",
    DocumentState.EMBEDDING: "embed",
    DocumentState.INDEXING: "index",
}


@dataclass(slots=True)
class _Work:
    """An item, and its document as it was last kept."""

    item: WorkItem
    document: Document


_Stage = Callable[[Collection, _Work], Awaitable[Document]]


@dataclass(frozen=True, slots=True)
class Stages:
    """The queue of documents to encode, the memory for their chunks, how many tokens need not go through it.

    `max_reading` bounds the documents of a lane whose texts are held at once; `telling` is told of each stage.
    """

    queue: WorkQueue
    memory: Budget
    max_straight_tokens: int
    max_reading: int
    telling: Telling


class Ingesting:
    """Handles queued documents in two stages, each under its lock; lives as long as its process, nothing to close.

    `read` takes them from their bytes to their chunks, `encode` from there to the end. Where others wait for vectors, a
    document is found by its words as soon as it is read, and queued for `encode`. `read` goes through to the end where
    nobody waits, and with what jobs bring where it is small: nobody looks for it yet, and a second write costs as much
    as the first. Both may be done again, at any point, and come to the same.
    """

    def __init__(
        self,
        catalog: Catalog,
        jobs: JobStore,
        pipeline: Pipeline,
        index: Index,
        locks: Locks,
        bus: ProgressBus,
        attempts: Attempts,
        stages: Stages,
    ) -> None:
        self._catalog = catalog
        self._jobs = jobs
        self._pipeline = pipeline
        self._index = index
        self._locks = locks
        self._bus = bus
        self._attempts = attempts
        self._stages = stages
        self._straight = asyncio.Lock()
        self._reading = {lane: asyncio.Semaphore(stages.max_reading) for lane in Lane}

    async def read(self, item: WorkItem) -> None:
        """Read the item's document; raises only where nothing about it could be kept."""
        await self._handle(item, self._read)

    async def encode(self, item: WorkItem) -> None:
        """Take the item's document, which was read, to its end; raises as `read` does."""
        await self._handle(item, self._encode)

    async def _handle(self, item: WorkItem, stage: _Stage) -> None:
        with acting_as(Identity(item.tenant, item.subject, _SCOPES)):
            async with self._locks.hold(item.tenant, item.name, self._attempts.patience.lock_wait_s):
                document = await self._taken_on(item, stage)
            if document is not None and not document.state.ended:
                return
            if item.job:
                await self._jobs.settle(item.tenant, item.job, _settled(item, document))
            if document is not None:
                await self._bus.publish(item.tenant, progress_of(document, job=item.job))

    async def _taken_on(self, item: WorkItem, stage: _Stage) -> Document | None:
        """The document after the stage; None where the item is about a content that is no longer its."""
        document = await self._catalog.find_document(item.tenant, item.collection, item.document)
        document = document.given_as(item.generation) if document else None
        if document is None or document.state.ended:
            return document
        work = _Work(item, document)
        try:
            after = await self._attempts.make(item, document, lambda: self._attempt(work, stage))
        except Superseded:
            await self._pipeline.forget(document)
            return None
        except Switching as error:
            metadata = {"etag": str(error)}
            raise Aborted("ETAG_MISMATCH", "the collection's index is being switched", metadata=metadata) from error
        if isinstance(after, MeshError):
            failure = Failure.of(after)
            kept = await self._keep(work, await self._left(work, failure))
            return work.document.failed(failure) if kept else None
        return after if not after.state.ended or await self._keep(work, after) else None

    async def _attempt(self, work: _Work, stage: _Stage) -> Document:
        """The document after the stage; raises Superseded, and what the stage fails with."""
        item = work.item
        collection = await self._catalog.find_collection(item.tenant, item.collection)
        if collection is None:
            raise Superseded
        try:
            return await stage(collection, work)
        except KeyError:
            current = await self._catalog.find_document(item.tenant, item.collection, item.document)
            if current is None or current.generation != item.generation:
                raise Superseded from None
            raise Internal("INTERNAL_ERROR", "the document's bytes are gone") from None
        except MeshError as error:
            await self._raise_if_switching(item, collection, error)
            raise

    async def _read(self, collection: Collection, work: _Work) -> Document:
        if work.document.kept_bytes:
            # Done before: what is missing is that this item ends too.
            return await self._hand_over(work, work.document)
        course, lane = self._course(work), work.item.lane
        async with self._reading[lane]:
            cut = await self._pipeline.read(collection, course, lane)
        if cut.tokens <= self._stages.max_straight_tokens:
            if lane is Lane.BULK:
                return await self._indexed(collection, work, course, cut)
            if not self._straight.locked():
                # One at most: the other uploads are never held up by the encoder.
                async with self._straight:
                    if self._pipeline.idle and await self._stages.queue.size() == 0:
                        return await self._indexed(collection, work, course, cut)
        kept_bytes = await self._pipeline.keep(course.document, cut)
        await course.reach(DocumentState.EMBEDDING, words_only=True)
        await self._pipeline.write_words(collection, course.document, cut)
        return await self._hand_over(work, course.waiting(kept_bytes))

    async def _encode(self, collection: Collection, work: _Work) -> Document:
        async with self._stages.memory.hold(work.document.kept_bytes):
            course = self._course(work)
            cut = await self._pipeline.kept(collection, work.document)
            if cut is None:
                cut = await self._pipeline.read(collection, course, work.item.lane)
            return await self._indexed(collection, work, course, cut)

    async def _indexed(self, collection: Collection, work: _Work, course: Course, cut: Cut) -> Document:
        ready = await self._pipeline.write(collection, course, cut, work.item.lane)
        if (beside := collection.beside) is not None:
            await self._pipeline.run_beside(beside, work.document)
        return ready

    async def _hand_over(self, work: _Work, document: Document) -> Document:
        item = work.item
        if not await self._catalog.hand_over(item, document):
            raise Superseded
        work.document = document
        if item.job:
            await self._jobs.reach(item.tenant, item.job, _reached(item, document))
        await self._bus.publish(item.tenant, progress_of(document, job=item.job, chunks_done=0))
        return document

    def _course(self, work: _Work) -> Course:
        async def report(changed: Document, encoded: int) -> None:
            # A document that is begun is being parsed, so far as its job knows; of its words the hand-over tells.
            words = changed.state is DocumentState.EMBEDDING and changed.words_only
            told_elsewhere = words or changed.state is DocumentState.PARSING
            moved = changed.state is not work.document.state and not told_elsewhere
            progress = progress_of(changed, job=work.item.job, chunks_done=encoded)
            reached = _reached(work.item, changed) if work.item.job and moved else None
            if not await self._stages.telling.tell(work.item, changed, progress, reached):
                raise Superseded
            work.document = changed

        return Course(work.document, report)

    async def _raise_if_switching(self, item: WorkItem, seen: Collection, error: MeshError) -> None:
        """Raise Switching for an error that comes of the index being switched, now or since the collection was seen.

        It ends the work on the item, whose lock the job that switches may want; the next worker finds another index.
        """
        kept = await self._catalog.find_collection(item.tenant, item.collection)
        if kept is None or error.reason not in _SWITCHED:
            return
        if seen.rebuild or kept.rebuild or kept.encoder != seen.encoder:
            raise Switching(kept.etag) from error

    async def _left(self, work: _Work, failure: Failure) -> Document:
        """The record that is left of a document that failed: it, with nothing to be found, or as it stood before.

        What stood is queued to be indexed again where the index may hold something else by now.
        """
        document = work.document
        collection = await self._catalog.find_collection(work.item.tenant, work.item.collection)
        # A write that was cut off may have been done or not.
        touched = document.words_only or document.state is DocumentState.INDEXING
        if document.standing is None:
            if touched:
                # Half of it would be worse than none.
                await delete_everywhere(self._index, collection, document)
            return document.failed(failure)
        stood = _as_it_stood(document.standing, document, failure)
        if touched or (collection and collection.encoder.name != stood.encoder):
            again = {"state": DocumentState.STORED, "generation": uuid.uuid4().hex, "words_only": True, "job": ""}
            return stood.changed(**again, searchable_time=None)
        return stood

    async def _keep(self, work: _Work, left: Document) -> bool:
        """Keep what is left at the end; False where the document changed meanwhile.

        What a deleted one left in the index goes too, and the bytes that are of no more use.
        """
        item, document = work.item, work.document
        if left.state.ended:
            kept = await self._catalog.replace_document(item.tenant, left, item.generation)
        else:
            kept = await self._catalog.accept(item.tenant, item.subject, left, item.generation)
        if kept:
            gone = document.standing if left.object == document.object else document
            if gone is not None:
                await self._pipeline.remove_content(gone)
        elif await self._catalog.find_document(item.tenant, item.collection, item.document) is None:
            collection = await self._catalog.find_collection(item.tenant, item.collection)
            await delete_everywhere(self._index, collection, document)
        await self._pipeline.forget(document)
        return kept


def _as_it_stood(standing: Document, failed: Document, failure: Failure) -> Document:
    """The record of what was ready before, with what was to take its place."""
    lost = FailedReplacement(
        content_hash=failed.content_hash,
        size_bytes=failed.size_bytes,
        failure=failure,
        create_time=failed.stored_time,
        generation=failed.generation,
    )
    # The first revision is what stood itself.
    return standing.changed(history=failed.history[1:], failed_replacement=lost)


def _reached(item: WorkItem, document: Document) -> Reached:
    searchable = document.searchable_time is not None
    return Reached(item.document, _STAGES[document.state], read=searchable, searchable=searchable)


def _settled(item: WorkItem, ended: Document | None) -> Settled:
    if ended is None:
        error = Aborted("CANCELLED", "the document was changed or deleted meanwhile")
        failure = DocumentFailure(uri="", document=item.name, failure=Failure.of(error))
        return Settled(item.document, "failed", failure=failure)
    if ended.failure is not None:
        failure = DocumentFailure(uri=ended.uri, document=ended.name, failure=ended.failure)
        return Settled(item.document, "failed", bytes=ended.size_bytes, failure=failure)
    return Settled(item.document, "ready", ended.chunk_count, ended.size_bytes, ended.page_count)
