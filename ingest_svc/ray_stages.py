"""What a Ray worker does with a file: read and cut it, then encode it and import it into the mesh."""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ingest_svc import kept_chunks
from ingest_svc.catalog import Collection, Document, DocumentState
from ingest_svc.course import Course, untold
from ingest_svc.edge_peer import Asked, EdgeAccess, EdgeIndex, EdgePeer, open_edge
from ingest_svc.encoder import VectorMaker
from ingest_svc.failure import Failure
from ingest_svc.folder_source import FolderSources
from ingest_svc.gathering import BatchLimits, open_gathering
from ingest_svc.intake import Admitted, Head, Origin, document_id, new_document
from ingest_svc.jobs import DocumentFailure, Entry, Settled, SettledAs, Source, Sources
from ingest_svc.object_folder import ObjectFolder, open_object_folder
from ingest_svc.objects import Upload
from ingest_svc.obstore_source import BucketSources
from ingest_svc.obstore_store import StoreOptions
from ingest_svc.parser_processes import ParserLimits, open_parser_processes
from ingest_svc.peers import EmbedderPeer
from ingest_svc.pipeline import Pipeline, PipelineLimits
from ingest_svc.places import parse_place
from ingest_svc.settings import Settings
from ingest_svc.strategies.loading import load_strategies
from ingest_svc.work import Lane, Pace, backoff_s
from meshkit.channel import open_channel
from meshkit.errors import Internal, MeshError, ResourceExhausted
from meshkit.identity import Identity, acting_as

logger = logging.getLogger(__name__)

_PART_BYTES = 1024 * 1024
# What something that is away or busy fails with; RESOURCE_EXHAUSTED counts where it says OVERLOADED.
_AWAY = ("UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED")
IDENTITY = Identity("ray", "ray", frozenset({"ingest"}))
"""Whom the embedder counts the work for: of tenants only the edge knows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a worker needs to know; goes to each of them.

    `model` is what its actors encode with, "" where embedder_svc does; `wait_s` how long it waits for a mesh that is
    away; `began` when the run did, by the driver's clock.
    """

    access: EdgeAccess
    settings: Settings
    collection: Collection
    source_uri: str
    began: datetime
    wait_s: float
    chunking: Asked | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """A document that was read and cut: its record, its chunks as `kept_chunks` dumps them, its bytes."""

    document: Document
    cut: bytes
    data: bytes


class Reading:
    """The first stage: files to chunks, on CPUs; see `open_reading`."""

    def __init__(self, plan: Plan, source: Source, edge: EdgePeer, objects: ObjectFolder, pipeline: Pipeline) -> None:
        self._plan = plan
        self._source = source
        self._edge = edge
        self._objects = objects
        self._pipeline = pipeline

    async def __call__(self, entry: Entry) -> Read | Settled:
        """The document read or, where there is nothing more to do, what became of it; raises nothing."""
        read: Read | Settled = await _settling(self._plan, entry.uri, lambda: self._read(entry))
        return read

    async def _read(self, entry: Entry) -> Read | Settled:
        plan = self._plan
        head = Head(
            collection=plan.collection.id,
            uri=entry.uri,
            metadata=plan.metadata,
            chunking=plan.chunking,
            size_bytes=entry.size,
        )
        known = await self._edge.indexed(head, plan.source_uri, entry.version)
        if known is not None:
            return self._unchanged(known)
        async with self._objects.open_upload(IDENTITY.tenant) as upload:
            await self._fetch(entry, upload)
            known = await self._edge.indexed(head, plan.source_uri, entry.version, upload.content_hash)
            if known is not None:
                await upload.discard()
                return self._unchanged(known)
            origin = Origin(IDENTITY.tenant, IDENTITY.subject, source=plan.source_uri, version=entry.version)
            chunking = plan.collection.chunking
            if plan.chunking is not None:
                chunking = load_strategies().resolve(*plan.chunking)
            admitted = Admitted(head, plan.collection, chunking)
            document = new_document(origin, admitted, upload.size, upload.content_hash)
            await upload.store(document.object)
        return await self._cut(document)

    async def _cut(self, document: Document) -> Read:
        try:
            course = Course(document, untold)
            cut = await self._pipeline.read(self._plan.collection, course, Lane.BULK)
            await course.reach(DocumentState.EMBEDDING)
            data = await self._objects.get(document.object) or b""
            return Read(course.document, await asyncio.to_thread(kept_chunks.dump, cut), data)
        finally:
            await self._objects.remove(document.object)

    async def _fetch(self, entry: Entry, upload: Upload) -> None:
        limit = self._plan.settings.max_document_bytes
        async with aclosing(self._source.read(entry, _PART_BYTES)) as parts:
            async for part in parts:
                if upload.size + len(part) > limit:
                    message = f"the document has more than {limit} bytes"
                    raise ResourceExhausted("TOO_LARGE", message, metadata={"limit_bytes": str(limit)})
                await upload.append(part)

    def _unchanged(self, document: Any) -> Settled:
        # A worker that takes over from one that died finds what that one imported.
        ours = document.update_time.ToDatetime(self._plan.began.tzinfo) >= self._plan.began
        outcome: SettledAs = "ready" if ours else "unchanged"
        chunks = document.chunk_count if ours else 0
        return Settled(document.name, outcome, chunks, document.size_bytes, document.page_count)


class Writing:
    """The second stage: chunks to vectors, and all into the mesh; see `open_writing`."""

    def __init__(self, plan: Plan, objects: ObjectFolder, pipeline: Pipeline) -> None:
        self._plan = plan
        self._objects = objects
        self._pipeline = pipeline

    async def __call__(self, read: Read) -> Settled:
        """What became of the document; raises nothing."""
        settled: Settled = await _settling(self._plan, read.document.uri, lambda: self._write(read))
        return settled

    async def _write(self, read: Read) -> Settled:
        document, cut = read.document, await asyncio.to_thread(kept_chunks.load, read.cut)
        await self._objects.put(document.object, read.data)
        try:
            await self._pipeline.write(self._plan.collection, Course(document, untold), cut, Lane.BULK)
        finally:
            await self._objects.remove(document.object)
        return Settled(document.name, "ready", document.chunk_count, document.size_bytes, document.page_count)


@dataclass(frozen=True, slots=True)
class _Tools:
    edge: EdgePeer
    objects: ObjectFolder
    pipeline: Pipeline


@asynccontextmanager
async def open_reading(plan: Plan) -> AsyncIterator[Reading]:
    """The first stage, in this loop; its parser ends with the body."""
    async with _open_tools(plan, "") as tools:
        source = await open_source(plan.source_uri, plan.settings)
        yield Reading(plan, source, tools.edge, tools.objects, tools.pipeline)


@asynccontextmanager
async def open_writing(plan: Plan) -> AsyncIterator[Writing]:
    """The second stage, in this loop."""
    async with _open_tools(plan, plan.model) as tools:
        yield Writing(plan, tools.objects, tools.pipeline)


async def open_source(uri: str, settings: Settings) -> Source:
    """What is at the URI, for whoever may read it as this process does; raises SOURCE_NOT_READABLE."""
    if uri.startswith("file:"):
        sources: Sources = FolderSources([Path("/")], settings.max_job_files)
    else:
        options = StoreOptions(settings.object_store_timeout_s, settings.s3_endpoint_url, settings.s3_region)
        sources = BucketSources([parse_place(uri)], options, settings.max_job_files)
    return await sources.open(IDENTITY.tenant, uri)


@asynccontextmanager
async def _open_tools(plan: Plan, model: str) -> AsyncIterator[_Tools]:
    settings = plan.settings
    parsing = ParserLimits(
        timeout_s=settings.parser_timeout_s,
        max_memory_bytes=settings.parser_max_memory_bytes,
        max_text_bytes=settings.max_text_bytes,
        ocr_languages=settings.ocr_languages,
        max_idle_bytes=settings.parser_idle_memory_bytes,
    )
    batches = BatchLimits(settings.max_batch_tokens, settings.max_batch_chunks, settings.encoder_stream_s)
    bounds = PipelineLimits(
        settings.max_batch_tokens, settings.max_batch_chunks, settings.max_tokenize_bytes, settings.max_kept_bytes
    )
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        expiry = (settings.upload_ttl_s, settings.upload_expiry_interval_s)
        objects = await stack.enter_async_context(open_object_folder(folder, *expiry))
        edge = await stack.enter_async_context(open_edge(plan.access))
        channel = await stack.enter_async_context(open_channel(settings.embedder_target, settings.channel))
        parser = await stack.enter_async_context(open_parser_processes(1, parsing))
        peer = EmbedderPeer(channel)
        encoder = await asyncio.to_thread(_own_encoder, model) if model else peer
        gathering = await stack.enter_async_context(open_gathering(encoder, batches))
        index = EdgeIndex(edge, objects, plan.chunking)
        yield _Tools(edge, objects, Pipeline(parser, objects, peer, gathering, index, load_strategies(), bounds))


def _own_encoder(model: str) -> VectorMaker:
    # It draws in torch, which most workers can do without.
    from ingest_svc.sentence_transformers_encoder import SentenceTransformersEncoder

    return SentenceTransformersEncoder.load(model)


async def _settling(plan: Plan, uri: str, attempt: Callable[[], Awaitable[Any]]) -> Any:
    """What the attempt comes to, made again while something is away; its failure as the document's."""
    pace = Pace(plan.settings.heartbeat_s, plan.settings.retry_backoff_s, plan.settings.retry_backoff_max_s)
    loop, failures = asyncio.get_running_loop(), 0
    until_s = loop.time() + plan.wait_s
    while True:
        try:
            with acting_as(IDENTITY):
                return await attempt()
        except MeshError as error:
            failures += 1
            pause_s = backoff_s(failures, pace)
            if not _passes(error) or loop.time() + pause_s > until_s:
                return failed(plan, uri, error)
            await asyncio.sleep(pause_s)
        except Exception:
            logger.exception("unexpected error with %s", uri)
            return failed(plan, uri, Internal("INTERNAL_ERROR", "internal error"))


def _passes(error: MeshError) -> bool:
    return error.code in _AWAY or error.reason == "OVERLOADED"


def failed(plan: Plan, uri: str, error: MeshError) -> Settled:
    """What becomes of a file that cannot be taken in."""
    name = f"{plan.collection.name}/documents/{document_id(uri)}"
    failure = DocumentFailure(uri=uri, document=name, failure=Failure.of(error))
    return Settled(name, "failed", failure=failure)
