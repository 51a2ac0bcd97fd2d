"""What the small mesh takes in: collections, documents and jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import google_crc32c
import grpc

from ragmesh.ingest.v1 import (
    chunking_pb2,
    chunking_pb2_grpc,
    collections_pb2,
    collections_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
)
from tests.clients.answering import check_token, refuse, status, with_metadata


class Collections(collections_pb2_grpc.CollectionServiceServicer):
    """Collections in memory."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.made: dict[str, collections_pb2.Collection] = {}
        self.changed: list[tuple[collections_pb2.Collection, list[str]]] = []

    async def CreateCollection(self, request: Any, context: Any) -> collections_pb2.CreateCollectionResponse:
        await check_token(context)
        name = f"collections/{request.collection_id}"
        self.names.append(name)
        self.made[name] = collections_pb2.Collection()
        self.made[name].MergeFrom(request.collection)
        self.made[name].name = name
        return collections_pb2.CreateCollectionResponse(collection=self.made[name])

    async def UpdateCollection(self, request: Any, context: Any) -> collections_pb2.UpdateCollectionResponse:
        await check_token(context)
        self.changed.append((request.collection, list(request.update_mask.paths)))
        return collections_pb2.UpdateCollectionResponse(collection=request.collection)

    async def GetCollection(self, request: Any, context: Any) -> collections_pb2.GetCollectionResponse:
        await check_token(context)
        if request.name not in self.names:
            await refuse(context, status(grpc.StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND", "no such collection"))
        return collections_pb2.GetCollectionResponse(collection=self.made[request.name])

    async def ListCollections(self, request: Any, context: Any) -> collections_pb2.ListCollectionsResponse:
        await check_token(context)
        found = [collections_pb2.Collection(name=name) for name in sorted(self.names)]
        return collections_pb2.ListCollectionsResponse(collections=found)


class Documents(documents_pb2_grpc.DocumentServiceServicer):
    """Documents in memory; bytes that are not UTF-8 cannot be read.

    The first `breaks` uploads are cut off once they have `break_at` bytes, which it keeps and has not told of.
    """

    def __init__(self) -> None:
        self.bytes: dict[str, bytes] = {}
        self.heads: list[documents_pb2.DocumentHead] = []
        self.begun: list[int] = []
        """The offset at which each upload began."""
        self.breaks = 0
        self.break_at = 0
        self._received: dict[str, bytes] = {}

    async def UploadDocument(self, requests: Any, context: Any) -> AsyncIterator[documents_pb2.UploadDocumentResponse]:
        await check_token(context)
        head = await self._begin(await anext(requests), context)
        yield _progress(
            head, documents_pb2.Document.STATE_RECEIVING, upload_id="u1", bytes_received=len(self._received[head.uri])
        )
        received = self._received[head.uri]
        async for request in requests:
            assert request.part.crc32c == google_crc32c.value(request.part.data)
            received += request.part.data
            if self.breaks and len(received) >= self.break_at:
                self._received[head.uri] = received[: self.break_at]
                self.breaks -= 1
                await refuse(context, status(grpc.StatusCode.UNAVAILABLE, "PEER_UNAVAILABLE", "gone"))
        data = received
        assert head.size_bytes == len(data)
        unchanged = self.bytes.get(head.uri) == data
        self.bytes[head.uri] = data
        yield _progress(head, documents_pb2.Document.STATE_STORED)
        try:
            data.decode()
        except UnicodeDecodeError:
            error = status(grpc.StatusCode.INVALID_ARGUMENT, "UNREADABLE_DOCUMENT", "not UTF-8")
            yield _progress(head, documents_pb2.Document.STATE_FAILED, error=error)
            return
        if not data.strip():
            error = status(grpc.StatusCode.INVALID_ARGUMENT, "NO_TEXT", "the document has no text")
            yield _progress(head, documents_pb2.Document.STATE_FAILED, error=error)
            return
        yield _progress(head, documents_pb2.Document.STATE_READY, unchanged=unchanged)

    async def GetDocument(self, request: Any, context: Any) -> documents_pb2.GetDocumentResponse:
        await check_token(context)
        history = [documents_pb2.Revision(parser="markdown-it-py 4", chunk_count=3)]
        document = documents_pb2.Document(name=request.name, title="Leave", chunk_count=4, history=history)
        return documents_pb2.GetDocumentResponse(document=document)

    async def _begin(self, request: Any, context: Any) -> documents_pb2.DocumentHead:
        begin = request.begin
        self.begun.append(begin.offset)
        self.heads.append(begin.document)
        uri = begin.document.uri
        if not begin.upload_id:
            self._received[uri] = b""
        if begin.offset != len(self._received[uri]):
            refusal = status(grpc.StatusCode.OUT_OF_RANGE, "OFFSET_MISMATCH", "the upload goes on elsewhere")
            await refuse(context, with_metadata(refusal, expected=str(len(self._received[uri]))))
        return begin.document  # type: ignore[no-any-return]


class Jobs(jobs_pb2_grpc.JobServiceServicer):
    """One job of two documents at a time, which does not end where its source is `endless`.

    A reindexing by the encoder `broken` fails, and one file of a source does.
    """

    def __init__(self) -> None:
        self.job = jobs_pb2.Job()
        self.started: list[jobs_pb2.StartJobRequest] = []

    async def StartJob(self, request: Any, context: Any) -> jobs_pb2.StartJobResponse:
        await check_token(context)
        self.started.append(request)
        self.job = jobs_pb2.Job(
            name="jobs/j2",
            collection=request.collection,
            source_uri=request.source_uri,
            state=jobs_pb2.Job.STATE_PENDING,
        )
        return jobs_pb2.StartJobResponse(job=self.job)

    async def GetJob(self, request: Any, context: Any) -> jobs_pb2.GetJobResponse:
        await check_token(context)
        if request.name != self.job.name:
            await refuse(context, status(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND", f"no job {request.name}"))
        return jobs_pb2.GetJobResponse(job=self.job)

    async def ListJobs(self, request: Any, context: Any) -> jobs_pb2.ListJobsResponse:
        await check_token(context)
        if request.page_token:
            return jobs_pb2.ListJobsResponse(jobs=[jobs_pb2.Job(name="jobs/j1")])
        return jobs_pb2.ListJobsResponse(jobs=[self.job], next_page_token="2")

    async def ReindexCollection(self, request: Any, context: Any) -> jobs_pb2.ReindexCollectionResponse:
        await check_token(context)
        reindexing = jobs_pb2.Reindexing(encoder=request.encoder or "default@1", language=request.language)
        self.job = jobs_pb2.Job(
            name="jobs/j1",
            collection=request.collection,
            reindexing=reindexing,
            state=jobs_pb2.Job.STATE_PENDING,
        )
        return jobs_pb2.ReindexCollectionResponse(job=self.job)

    async def WatchJob(self, request: Any, context: Any) -> AsyncIterator[jobs_pb2.WatchJobResponse]:
        await check_token(context)
        self.job.state = jobs_pb2.Job.STATE_RUNNING
        self.job.counts.found = 2
        yield jobs_pb2.WatchJobResponse(job=self.job)
        if self.job.source_uri.endswith("/endless"):
            await asyncio.Event().wait()
        if self.job.source_uri:
            error = status(grpc.StatusCode.INVALID_ARGUMENT, "UNREADABLE_DOCUMENT", "the PDF is broken")
            self.job.failures.add(uri=f"{self.job.source_uri}/broken.pdf", error=error)
            self.job.counts.MergeFrom(jobs_pb2.JobCounts(ready=1, failed=3, without_text=2, chunks=7))
            self.job.state = jobs_pb2.Job.STATE_SUCCEEDED
        elif self.job.reindexing.encoder == "broken":
            error = status(grpc.StatusCode.INTERNAL, "INTERNAL_ERROR", "the document's bytes are gone")
            self.job.failures.add(document=f"{self.job.collection}/documents/one", error=error)
            self.job.state = jobs_pb2.Job.STATE_FAILED
        else:
            self.job.counts.ready = 2
            self.job.state = jobs_pb2.Job.STATE_SUCCEEDED
        yield jobs_pb2.WatchJobResponse(job=self.job)

    async def CancelJob(self, request: Any, context: Any) -> jobs_pb2.CancelJobResponse:
        await check_token(context)
        self.job.state = jobs_pb2.Job.STATE_CANCELLED
        return jobs_pb2.CancelJobResponse(job=self.job)


class Chunking(chunking_pb2_grpc.ChunkingServiceServicer):
    """One strategy with one parameter."""

    async def ListChunkingStrategies(self, request: Any, context: Any) -> chunking_pb2.ListChunkingStrategiesResponse:
        await check_token(context)
        schema: dict[str, Any] = {"properties": {"max_tokens": {"default": 180, "description": "Most tokens."}}}
        strategy = chunking_pb2.ChunkingStrategy(strategy="recursive", description="Parts at paragraphs.")
        strategy.parameters_schema.update(schema)
        return chunking_pb2.ListChunkingStrategiesResponse(strategies=[strategy])

    async def RecommendChunkingStrategy(
        self, request: Any, context: Any
    ) -> chunking_pb2.RecommendChunkingStrategyResponse:
        await check_token(context)
        chunking = chunking_pb2.Chunking(strategy="recursive")
        chunking.parameters.update({"max_tokens": 120})
        rationale = f"{request.media_type}: {request.sample}, {request.use_case}"
        return chunking_pb2.RecommendChunkingStrategyResponse(chunking=chunking, rationale=rationale)


def _progress(head: Any, state: Any, **more: Any) -> documents_pb2.UploadDocumentResponse:
    progress = documents_pb2.DocumentProgress(document=f"{head.parent}/documents/x", state=state, **more)
    return documents_pb2.UploadDocumentResponse(progress=progress)
