"""A small mesh in one process: the services that the client calls, with all they keep in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from ragmesh.common.v1 import chunk_pb2, server_pb2
from ragmesh.gateway.v1 import (
    answers_pb2,
    answers_pb2_grpc,
    events_pb2,
    mesh_pb2,
    mesh_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
)
from ragmesh.generator.v1 import generator_pb2
from ragmesh.ingest.v1 import (
    collections_pb2,
    collections_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
)
from ragmesh.retriever.v1 import retriever_pb2, retriever_pb2_grpc

TOKEN = "let-me-in"  # a token of this test mesh only
CITATION = chunk_pb2.Citation(number=1, title="Leave", uri="leave.md", page=2, heading_path=["Leave", "Parents"])


def status(
    code: grpc.StatusCode, reason: str, message: str, violations: dict[str, str] | None = None
) -> status_pb2.Status:
    """A status with ErrorInfo and, where given, field violations."""
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=reason, domain="ragmesh")]
    if violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=name, description=what)
            for name, what in violations.items()
        ]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code.value[0], message=message, details=packed)


async def refuse(context: Any, refusal: status_pb2.Status) -> None:
    """Ends the call with a status."""
    await context.abort_with_status(rpc_status.to_status(refusal))


async def check_token(context: Any) -> None:
    """Refuses a call without the token."""
    if dict(context.invocation_metadata()).get("authorization") != f"Bearer {TOKEN}":
        await refuse(context, status(grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_INVALID", "no valid token"))


class Answers(answers_pb2_grpc.AnswerServiceServicer):
    """Answers by the first word: `slow`, `fail`, `cut`, `abstain`, else three tokens and a citation."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        """Set when a caller has left a slow answer."""

    async def Ask(self, request: Any, context: Any) -> AsyncIterator[answers_pb2.AskResponse]:
        await check_token(context)
        if request.collection != "collections/handbook":
            message = f"no collection {request.collection}"
            await refuse(context, status(grpc.StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND", message))
        word = request.question.split()[0]
        yield _event(1, started=events_pb2.Started(answer="answers/a1", session="sessions/s1", model="extractive"))
        if word == "abstain":
            abstained = events_pb2.Answer(
                finish_reason=events_pb2.FINISH_REASON_ABSTAINED,
                abstention=events_pb2.ABSTENTION_REASON_NO_RELEVANT_CHUNKS,
            )
            yield _event(2, final=abstained)
            return
        for sequence, text in enumerate(("Thirty ", "days. ", "[1]"), 2):
            yield _event(sequence, token=events_pb2.TokenDelta(text=text))
            if word == "cut":
                return
            if word == "fail":
                failure = status(grpc.StatusCode.UNAVAILABLE, "ENGINE_UNAVAILABLE", "the engine died")
                yield _event(3, error=failure)
                await refuse(context, failure)
            if word == "slow":
                await self._stay()
        yield _event(5, citation=CITATION)
        answer = events_pb2.Answer(name="answers/a1", text="Thirty days. [1]", citations=[CITATION])
        yield _event(6, final=answer)

    async def AskOnce(self, request: Any, context: Any) -> answers_pb2.AskOnceResponse:
        await check_token(context)
        return answers_pb2.AskOnceResponse(answer=events_pb2.Answer(question=request.ask.question, text="Thirty."))

    async def _stay(self) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            self.left.set()


class Sessions(sessions_pb2_grpc.SessionServiceServicer):
    """Two sessions on two pages."""

    async def ListSessions(self, request: Any, context: Any) -> sessions_pb2.ListSessionsResponse:
        await check_token(context)
        if request.page_token:
            return sessions_pb2.ListSessionsResponse(sessions=[sessions_pb2.Session(name="sessions/s2")])
        first = sessions_pb2.Session(name="sessions/s1")
        return sessions_pb2.ListSessionsResponse(sessions=[first], next_page_token="2")


class Mesh(mesh_pb2_grpc.MeshServiceServicer):
    """A gateway that serves, and a generator that does not once `broken` is set."""

    broken = False

    async def GetMeshStatus(self, request: Any, context: Any) -> mesh_pb2.GetMeshStatusResponse:
        await check_token(context)
        state = server_pb2.ServiceHealth.STATE_NOT_SERVING if self.broken else server_pb2.ServiceHealth.STATE_SERVING
        servers = [
            server_pb2.ServerInfo(
                name="gateway",
                version="0.1.0",
                services=[server_pb2.ServiceHealth(service="a", state=server_pb2.ServiceHealth.STATE_SERVING)],
            ),
            server_pb2.ServerInfo(name="generator_svc", services=[server_pb2.ServiceHealth(service="b", state=state)]),
        ]
        return mesh_pb2.GetMeshStatusResponse(servers=servers)

    async def ListModels(self, request: Any, context: Any) -> mesh_pb2.ListModelsResponse:
        await check_token(context)
        model = generator_pb2.ModelInfo(
            model="extractive", kind=generator_pb2.ENGINE_KIND_EXTRACTIVE, engine="extractive"
        )
        return mesh_pb2.ListModelsResponse(models=[model])


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer):
    """One hit for every query; a filter is malformed."""

    async def Search(self, request: Any, context: Any) -> retriever_pb2.SearchResponse:
        await check_token(context)
        if request.filter:
            message = "the filter does not parse"
            violations = {"filter": "expected a value at 7"}
            await refuse(context, status(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FILTER", message, violations))
        chunk = chunk_pb2.Chunk(
            name="collections/handbook/documents/leave/chunks/0", title="Leave", text="Thirty days."
        )
        return retriever_pb2.SearchResponse(hits=[retriever_pb2.Hit(chunk=chunk, score=0.5)])


class Collections(collections_pb2_grpc.CollectionServiceServicer):
    """Collections in memory."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def CreateCollection(self, request: Any, context: Any) -> collections_pb2.CreateCollectionResponse:
        await check_token(context)
        name = f"collections/{request.collection_id}"
        self.names.append(name)
        return collections_pb2.CreateCollectionResponse(collection=collections_pb2.Collection(name=name))

    async def GetCollection(self, request: Any, context: Any) -> collections_pb2.GetCollectionResponse:
        await check_token(context)
        if request.name not in self.names:
            await refuse(context, status(grpc.StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND", "no such collection"))
        return collections_pb2.GetCollectionResponse(collection=collections_pb2.Collection(name=request.name))

    async def ListCollections(self, request: Any, context: Any) -> collections_pb2.ListCollectionsResponse:
        await check_token(context)
        found = [collections_pb2.Collection(name=name) for name in sorted(self.names)]
        return collections_pb2.ListCollectionsResponse(collections=found)


class Documents(documents_pb2_grpc.DocumentServiceServicer):
    """Documents in memory; bytes that are not UTF-8 cannot be read."""

    def __init__(self) -> None:
        self.bytes: dict[str, bytes] = {}

    async def UploadDocument(self, requests: Any, context: Any) -> AsyncIterator[documents_pb2.UploadDocumentResponse]:
        await check_token(context)
        head, data = None, b""
        async for request in requests:
            if request.HasField("begin"):
                head = request.begin.document
            data += request.part.data
        assert head is not None
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
        yield _progress(head, documents_pb2.Document.STATE_READY, unchanged=unchanged)


class Jobs(jobs_pb2_grpc.JobServiceServicer):
    """One reindexing of two documents at a time; by the encoder `broken` it fails."""

    def __init__(self) -> None:
        self.job = jobs_pb2.Job()

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
        if self.job.reindexing.encoder == "broken":
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


class SmallMesh:
    """The services of a running small mesh, and its address."""

    def __init__(self) -> None:
        self.answers = Answers()
        self.mesh = Mesh()
        self.collections = Collections()
        self.documents = Documents()
        self.address = ""


@asynccontextmanager
async def serve() -> AsyncIterator[SmallMesh]:
    """Serves a small mesh on a free port of the loopback; closing it stops the server."""
    mesh = SmallMesh()
    server = grpc.aio.server()
    answers_pb2_grpc.add_AnswerServiceServicer_to_server(mesh.answers, server)
    sessions_pb2_grpc.add_SessionServiceServicer_to_server(Sessions(), server)
    mesh_pb2_grpc.add_MeshServiceServicer_to_server(mesh.mesh, server)
    retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(Retriever(), server)
    collections_pb2_grpc.add_CollectionServiceServicer_to_server(mesh.collections, server)
    documents_pb2_grpc.add_DocumentServiceServicer_to_server(mesh.documents, server)
    jobs_pb2_grpc.add_JobServiceServicer_to_server(Jobs(), server)
    mesh.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield mesh
    finally:
        await server.stop(0)


def _event(sequence: int, **event: Any) -> answers_pb2.AskResponse:
    return answers_pb2.AskResponse(event=events_pb2.AnswerEvent(sequence=sequence, **event))


def _progress(head: Any, state: Any, **more: Any) -> documents_pb2.UploadDocumentResponse:
    progress = documents_pb2.DocumentProgress(document=f"{head.parent}/documents/x", state=state, **more)
    return documents_pb2.UploadDocumentResponse(progress=progress)
