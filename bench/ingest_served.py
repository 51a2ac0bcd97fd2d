"""What takes a folder in: ingest_svc and all that it stands on, as the local mesh runs them, and what became of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from bench.ingest_watch import Watch, watching
from deploy.local import redis_server, services
from deploy.local.settings import LocalSettings, Ports
from deploy.local.supervisor import keep_running
from ingest_svc.chunking import Chunk
from meshkit.channel import open_channel, peer_errors
from meshkit.identity import Identity
from ragmesh.common.v1 import chunk_pb2
from ragmesh.ingest.v1 import (
    collections_pb2,
    collections_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
)
from ragmesh.retriever.v1 import retriever_pb2, retriever_pb2_grpc

COLLECTION = "collections/bench"
PROCESSES = ("redis", "embedder", "retriever", "ingest")
PARSERS = "parsers"
READY = documents_pb2.Document.STATE_READY
_TENANT = Identity("bench", "bench", frozenset({"search", "ingest"}))
_POLL_S = 0.5
_PAGE = 1000
_RUNNING = (jobs_pb2.Job.STATE_PENDING, jobs_pb2.Job.STATE_RUNNING)


@dataclass(frozen=True, slots=True)
class Stubs:
    """What is called."""

    collections: collections_pb2_grpc.CollectionServiceStub
    documents: documents_pb2_grpc.DocumentServiceStub
    jobs: jobs_pb2_grpc.JobServiceStub
    retriever: retriever_pb2_grpc.RetrieverServiceStub


@dataclass(frozen=True, slots=True)
class Run:
    """A job that ended: its seconds from start to end, its counts, and what the processes held and used meanwhile."""

    wall_s: float
    counts: jobs_pb2.JobCounts
    watch: Watch


class Served:
    """The services with an empty collection; `open_served` starts and stops them."""

    def __init__(self, stubs: Stubs, pids: Mapping[str, int]) -> None:
        self.stubs = stubs
        self._pids = pids

    async def ingest(self, folder: Path) -> Run:
        """Take the folder in by a job; raises RuntimeError where the job fails."""
        async with watching(self._pids, apart={"ingest": PARSERS}) as watch:
            request = jobs_pb2.StartJobRequest(collection=COLLECTION, source_uri=folder.as_uri())
            with peer_errors():
                job = (await self.stubs.jobs.StartJob(request)).job
                while job.state in _RUNNING:
                    await asyncio.sleep(_POLL_S)
                    job = (await self.stubs.jobs.GetJob(jobs_pb2.GetJobRequest(name=job.name))).job
                    watch.work = job.counts.ready + job.counts.unchanged + job.counts.failed
        if job.state != jobs_pb2.Job.STATE_SUCCEEDED:
            raise RuntimeError(f"the job did not succeed: {job.error.message}")
        wall_s = (job.end_time.ToDatetime() - job.create_time.ToDatetime()).total_seconds()
        return Run(wall_s, job.counts, watch)

    async def documents(self) -> AsyncGenerator[documents_pb2.Document]:
        """All documents of the collection."""
        request = documents_pb2.ListDocumentsRequest(parent=COLLECTION, page_size=_PAGE)
        with peer_errors():
            while True:
                page = await self.stubs.documents.ListDocuments(request)
                for document in page.documents:
                    yield document
                if not page.next_page_token:
                    return
                request.page_token = page.next_page_token

    async def chunks(self, document: str) -> AsyncGenerator[Chunk]:
        """All chunks of a document as they are indexed."""
        request = retriever_pb2.ListChunksRequest(parent=document, page_size=_PAGE)
        with peer_errors():
            while True:
                page = await self.stubs.retriever.ListChunks(request)
                for chunk in page.chunks:
                    yield _chunk(chunk)
                if not page.next_page_token:
                    return
                request.page_token = page.next_page_token

    async def hits(self, query: str, mode: retriever_pb2.SearchMode.ValueType, top_k: int) -> Counter[str]:
        """How many chunks of each document are among the best `top_k`."""
        request = retriever_pb2.SearchRequest(collection=COLLECTION, query=query, mode=mode, top_k=top_k)
        with peer_errors():
            response = await self.stubs.retriever.Search(request)
        return Counter(hit.chunk.document for hit in response.hits)


def path_of(document: documents_pb2.Document, folder: Path) -> str:
    """A document's path below the folder that it came from."""
    return unquote(document.uri).removeprefix(unquote(folder.as_uri())).lstrip("/")


def _chunk(chunk: chunk_pb2.Chunk) -> Chunk:
    return Chunk(
        ordinal=chunk.ordinal,
        text=chunk.text,
        start=chunk.source.start,
        end=chunk.source.end,
        token_count=chunk.token_count,
        page=chunk.page,
        heading_path=tuple(chunk.heading_path),
    )


@asynccontextmanager
async def open_served(data: Path, source: Path) -> AsyncIterator[Served]:
    """The services with their data and logs in the folder `data`, able to read `source`. Raises StartError."""
    settings, ports = LocalSettings(data_dir=data), Ports.free().chosen()
    programs = [services.program(name, settings, ports, data) for name in PROCESSES[1:]]
    roots = {"RAGMESH_INGEST_SOURCE_ROOTS": str(source)}
    programs = [replace(each, environment={**each.environment, **roots}) for each in programs]
    pids: dict[str, int] = {}
    async with AsyncExitStack() as stack:
        for program in [redis_server.program(data / "redis", ports.redis), *programs]:
            running = keep_running(program, data / f"{program.name}.log", settings)
            process = await stack.enter_async_context(running)
            await process.serving()
            pids[program.name] = process.pid
        ingest, retriever = [
            await stack.enter_async_context(open_channel(services.address(name, ports), identity=_TENANT))
            for name in ("ingest", "retriever")
        ]
        stubs = Stubs(
            collections_pb2_grpc.CollectionServiceStub(ingest),
            documents_pb2_grpc.DocumentServiceStub(ingest),
            jobs_pb2_grpc.JobServiceStub(ingest),
            retriever_pb2_grpc.RetrieverServiceStub(retriever),
        )
        with peer_errors():
            await stubs.collections.CreateCollection(
                collections_pb2.CreateCollectionRequest(
                    collection_id=COLLECTION.rpartition("/")[2], collection=collections_pb2.Collection()
                )
            )
        yield Served(stubs, pids)
