"""Documents that were read, cut and encoded elsewhere: checked, kept, and written to the index in one step."""

import asyncio
import pickle
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import IO, Any

from ingest_svc import metadata
from ingest_svc.catalog import Catalog, Collection, Document, DocumentState, Timing
from ingest_svc.chunking import Choice, Chunk
from ingest_svc.course import Course, untold
from ingest_svc.index import Index, Part, delete_everywhere
from ingest_svc.intake import Accepted, Admitted, Head, Intake, Origin, new_document
from ingest_svc.objects import ObjectStore, Upload
from ingest_svc.pipeline import Pipeline
from ingest_svc.threads import to_its_end
from ingest_svc.uploading import Bytes, check_length, check_sum, out_of_order
from ingest_svc.work import Locks
from meshkit.admission import Permits
from meshkit.errors import Aborted, DataLoss, FailedPrecondition, ResourceExhausted, invalid

_FLOAT32_BYTES = 4
# What a document's parts take up in memory before they go to disk.
_IN_MEMORY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Made:
    """What was made of a document elsewhere; `encoder`, name@revision, counted the tokens and made the vectors.

    `metadata` is what its chunks get.
    """

    encoder: str
    choice: Choice
    chunk_count: int
    title: str = ""
    media_type: str = ""
    page_count: int = 0
    parser: str = ""
    warnings: tuple[str, ...] = ()
    timings: tuple[Timing, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Import:
    """Begins an import: what comes with the bytes, their SHA-256, and what was made of them."""

    head: Head
    content_hash: str
    made: Made
    source: str = ""
    version: str = ""


Messages = AsyncGenerator[Import | Bytes | Part]


class Importing:
    """Takes in documents that need no more work, many at once; lives as long as its process, nothing to close."""

    def __init__(
        self,
        catalog: Catalog,
        objects: ObjectStore,
        index: Index,
        pipeline: Pipeline,
        intake: Intake,
        locks: Locks,
        permits: Permits,
        max_chunks_bytes: int,
    ) -> None:
        self._catalog = catalog
        self._objects = objects
        self._index = index
        self._pipeline = pipeline
        self._intake = intake
        self._locks = locks
        self._permits = permits
        self._max_chunks_bytes = max_chunks_bytes

    async def check(self, origin: Origin, head: Head, content_hash: str) -> Document | None:
        """The document, where it is indexed already, by its version at its source or its content's hash; else None.

        Raises what Intake.admit raises.
        """
        admitted = await self._intake.admit(origin.tenant, head)
        if not content_hash:
            return await self._intake.indexed(origin, admitted)
        return await self._intake.indexed_content(origin, admitted, content_hash)

    async def take(self, tenant: str, subject: str, messages: Messages) -> Accepted:
        """The document as it is kept, findable.

        Raises OUT_OF_ORDER, TOO_LARGE, CHECKSUM_MISMATCH, ENCODER_MISMATCH, INVALID_FIELD, OVERLOADED, CANCELLED where
        it was changed or deleted meanwhile, and what Intake and Index raise; then nothing is kept, or it is queued to
        be read here.
        """
        begin = await anext(messages, None)
        if not isinstance(begin, Import):
            raise out_of_order("begin")
        admitted = await self._intake.admit(tenant, begin.head, "begin.document")
        self._check(admitted.collection, begin.made)
        origin = Origin(tenant, subject, source=begin.source, version=begin.version)
        async with self._permits.take(), self._objects.open_upload(tenant) as upload:
            with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
                spool = _Spool(file, self._max_chunks_bytes)
                try:
                    await self._receive(upload, spool, begin, messages)
                except BaseException:
                    await upload.discard()
                    raise
                # Cut off in the middle, it would leave bytes that no document has.
                return await to_its_end(self._keep(origin, admitted, begin, upload, spool))

    def _check(self, collection: Collection, made: Made) -> None:
        if collection.encoder.name != made.encoder:
            values = {"expected": collection.encoder.name, "given": made.encoder}
            message = "the vectors are not of the collection's encoder"
            raise FailedPrecondition("ENCODER_MISMATCH", message, metadata=values)
        limit = self._intake.limits.max_metadata_bytes
        metadata.check(made.metadata, collection.filterable_fields, limit, "begin.metadata")

    async def _receive(self, upload: Upload, spool: "_Spool", begin: Import, messages: Messages) -> None:
        async for message in messages:
            if isinstance(message, Part):
                await spool.append(message)
            elif isinstance(message, Bytes) and not spool.chunks:
                check_sum(message)
                self._intake.check_size(upload.size + len(message.data))
                await upload.append(message.data)
            else:
                raise out_of_order("chunks")
        # To a server, a caller who left looks like one who has sent all: the hash and the count tell them apart.
        check_length(upload, begin.head.size_bytes)
        if upload.content_hash != begin.content_hash:
            values = {"expected_sha256": begin.content_hash}
            raise DataLoss("CHECKSUM_MISMATCH", "the bytes are not those that were sent", metadata=values)
        if not spool.chunks or spool.chunks != begin.made.chunk_count:
            raise out_of_order("chunks")

    async def _keep(
        self, origin: Origin, admitted: Admitted, begin: Import, upload: Upload, spool: "_Spool"
    ) -> Accepted:
        """Keep the document and write its chunks, under its lock: the worker that it is queued for finds it done."""
        named = new_document(origin, admitted, upload.size, upload.content_hash)
        async with self._locks.hold(origin.tenant, named.name, self._intake.limits.lock_wait_s):
            accepted = await self._intake.accept(origin, admitted, upload)
            if accepted.unchanged:
                return accepted
            # As it is kept: with what it was before.
            kept = await self._catalog.get_document(origin.tenant, named.collection, named.id)
            if kept.fingerprint != named.fingerprint:
                raise _superseded()
            course = Course(_described(kept, begin.made, spool.tokens), untold)
            await course.reach(DocumentState.INDEXING)
            await self._write(origin.tenant, course.document, begin.made, spool)
            ready = await self._finish(origin.tenant, course.ready(begin.made.encoder), kept.standing)
        return Accepted(ready, unchanged=False)

    async def _write(self, tenant: str, document: Document, made: Made, spool: "_Spool") -> None:
        async with aclosing(spool.parts()) as parts:
            await self._index.write(document, made.encoder, made.metadata, parts)
        collection = await self._catalog.find_collection(tenant, document.collection)
        if collection is not None and (beside := collection.beside) is not None:
            await self._pipeline.run_beside(beside, document)

    async def _finish(self, tenant: str, ready: Document, replaced: Document | None) -> Document:
        """The document, kept as ready in place of what stood; raises CANCELLED where it is another one by now."""
        # Chunks that a worker kept for it, before it was imported, are of no more use.
        await self._pipeline.forget(ready)
        if await self._catalog.replace_document(tenant, ready, ready.generation):
            if replaced is not None:
                await self._pipeline.remove_content(replaced)
            return ready
        if await self._catalog.find_document(tenant, ready.collection, ready.id) is None:
            collection = await self._catalog.find_collection(tenant, ready.collection)
            await delete_everywhere(self._index, collection, ready)
        raise _superseded()


class _Spool:
    """Parts of a document, checked as they come, in a file; lives for one import."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._bytes = 0
        self._last = 0
        self.chunks = 0
        self.tokens = 0

    async def append(self, part: Part) -> None:
        """Keep the next chunks; raises INVALID_FIELD or TOO_LARGE."""
        vectors = part.vectors
        if vectors is None or vectors.count != len(part.chunks) or not part.chunks:
            raise invalid("chunks.vectors", "must have one row a chunk")
        if vectors.dtype == "DATA_TYPE_FLOAT32" and len(vectors.data) != _row_bytes(vectors.dimension) * vectors.count:
            raise invalid("chunks.vectors", "has not as many bytes as its rows take")
        for chunk in part.chunks:
            self._check(chunk)
        self._bytes += len(vectors.data) + sum(len(chunk.text.encode()) for chunk in part.chunks)
        if self._bytes > self._max_bytes:
            values = {"limit_bytes": str(self._max_bytes)}
            raise ResourceExhausted("TOO_LARGE", "the chunks and vectors take up too much", metadata=values)
        await asyncio.to_thread(pickle.dump, part, self._file)

    async def parts(self) -> AsyncGenerator[Part]:
        """All of them, from the first."""
        await asyncio.to_thread(self._file.seek, 0)
        left = self.chunks
        while left:
            # What `append` wrote, a moment ago.
            part: Part = await asyncio.to_thread(pickle.load, self._file)
            left -= len(part.chunks)
            yield part

    def _check(self, chunk: Chunk) -> None:
        if chunk.ordinal != self.chunks:
            raise invalid("chunks.chunks.ordinal", f"{self.chunks} was expected")
        if not self._last <= chunk.start < chunk.end:
            raise invalid("chunks.chunks.source", "must ascend, and hold some text")
        if not chunk.text:
            raise invalid("chunks.chunks.text", "is missing")
        if chunk.token_count < 1:
            raise invalid("chunks.chunks.token_count", "must be one at least")
        self._last = chunk.start
        self.chunks += 1
        self.tokens += chunk.token_count


def _row_bytes(dimension: int) -> int:
    return dimension * _FLOAT32_BYTES


def _described(document: Document, made: Made, token_count: int) -> Document:
    """The record with what was made of the document."""
    return document.changed(
        title=document.given_title or made.title,
        media_type=made.media_type,
        page_count=made.page_count,
        parser=made.parser,
        choice=made.choice,
        warnings=made.warnings,
        timings=made.timings,
        chunk_count=made.chunk_count,
        token_count=token_count,
    )


def _superseded() -> Aborted:
    return Aborted("CANCELLED", "the document was changed or deleted meanwhile")
