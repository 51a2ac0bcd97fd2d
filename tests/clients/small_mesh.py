"""A small mesh in one process: the services that the client calls, with all they keep in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from ragmesh.common.v1 import chunk_pb2, server_pb2
from ragmesh.gateway.v1 import (
    answers_pb2,
    answers_pb2_grpc,
    events_pb2,
    feedback_pb2_grpc,
    mesh_pb2,
    mesh_pb2_grpc,
    sessions_pb2_grpc,
)
from ragmesh.generator.v1 import generator_pb2
from ragmesh.ingest.v1 import chunking_pb2_grpc, collections_pb2_grpc, documents_pb2_grpc, jobs_pb2_grpc
from ragmesh.retriever.v1 import retriever_pb2, retriever_pb2_grpc
from tests.clients.answering import check_token, refuse, status
from tests.clients.small_intake import Chunking, Collections, Documents, Jobs
from tests.clients.small_records import Feedback, Sessions

CITATION = chunk_pb2.Citation(number=1, title="Leave", uri="leave.md", page=2, heading_path=["Leave", "Parents"])


ANSWER = events_pb2.Answer(name="answers/a1", text="Thirty days. [1]", citations=[CITATION])
SHORT = events_pb2.Answer(name=ANSWER.name, text=ANSWER.text, finish_reason=events_pb2.FINISH_REASON_LENGTH)


class Answers(answers_pb2_grpc.AnswerServiceServicer):
    """Answers by the first word: `slow`, `fail`, `cut`, `abstain`, `short`, else three tokens and a citation."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        """Set when a caller has left a slow answer."""
        self.resumed: list[int] = []
        """The numbers behind which answers were taken up; the first `breaks` such streams end after an event."""
        self.breaks = 0
        self.forgets = False
        """Whether no answer is known to those who come back."""
        self.lingering: list[float] = []
        """Seconds that each answer was asked to go on for."""

    async def Ask(self, request: Any, context: Any) -> AsyncIterator[answers_pb2.AskResponse]:
        await check_token(context)
        if request.collection != "collections/handbook":
            message = f"no collection {request.collection}"
            await refuse(context, status(grpc.StatusCode.NOT_FOUND, "COLLECTION_NOT_FOUND", message))
        self.lingering.append(request.linger.ToTimedelta().total_seconds())
        word = request.question.split()[0]
        yield _event(1, started=events_pb2.Started(answer="answers/a1", session="sessions/s1", model="extractive"))
        if word == "abstain":
            abstained = events_pb2.Answer(
                name=ANSWER.name,
                finish_reason=events_pb2.FINISH_REASON_ABSTAINED,
                abstention=events_pb2.ABSTENTION_REASON_NO_RELEVANT_CHUNKS,
                degradations=[retriever_pb2.Degradation(stage="rerank", reason="DEADLINE_EXCEEDED")],
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
        yield _event(6, final=SHORT if word == "short" else ANSWER)

    async def AskOnce(self, request: Any, context: Any) -> answers_pb2.AskOnceResponse:
        await check_token(context)
        return answers_pb2.AskOnceResponse(answer=events_pb2.Answer(question=request.ask.question, text="Thirty."))

    async def GetAnswer(self, request: Any, context: Any) -> answers_pb2.GetAnswerResponse:
        await check_token(context)
        return answers_pb2.GetAnswerResponse(answer=ANSWER)

    async def ExplainAnswer(self, request: Any, context: Any) -> answers_pb2.ExplainAnswerResponse:
        await check_token(context)
        return answers_pb2.ExplainAnswerResponse(answer=ANSWER, prompt="How long?")

    async def ResumeAnswer(self, request: Any, context: Any) -> AsyncIterator[answers_pb2.ResumeAnswerResponse]:
        await check_token(context)
        self.resumed.append(request.after_sequence)
        if request.name != ANSWER.name or self.forgets:
            await refuse(context, status(grpc.StatusCode.NOT_FOUND, "ANSWER_NOT_FOUND", "no such answer"))
        asked = answers_pb2.AskRequest(question="Again?", collection="collections/handbook")
        async for response in self.Ask(asked, context):
            if response.event.sequence > request.after_sequence:
                yield answers_pb2.ResumeAnswerResponse(event=response.event)
                if len(self.resumed) <= self.breaks:
                    return

    async def ReplayAnswer(self, request: Any, context: Any) -> AsyncIterator[answers_pb2.ReplayAnswerResponse]:
        asked = answers_pb2.AskRequest(question="Again?", collection="collections/handbook")
        async for response in self.Ask(asked, context):
            yield answers_pb2.ReplayAnswerResponse(event=response.event)

    async def _stay(self) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            self.left.set()


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


class SmallMesh:
    """The services of a running small mesh, and its address."""

    def __init__(self) -> None:
        self.answers = Answers()
        self.sessions = Sessions()
        self.feedback = Feedback()
        self.mesh = Mesh()
        self.collections = Collections()
        self.documents = Documents()
        self.jobs = Jobs()
        self.address = ""


@asynccontextmanager
async def serve() -> AsyncIterator[SmallMesh]:
    """Serves a small mesh on a free port of the loopback; closing it stops the server."""
    mesh = SmallMesh()
    server = grpc.aio.server()
    answers_pb2_grpc.add_AnswerServiceServicer_to_server(mesh.answers, server)
    sessions_pb2_grpc.add_SessionServiceServicer_to_server(mesh.sessions, server)
    feedback_pb2_grpc.add_FeedbackServiceServicer_to_server(mesh.feedback, server)
    mesh_pb2_grpc.add_MeshServiceServicer_to_server(mesh.mesh, server)
    retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(Retriever(), server)
    collections_pb2_grpc.add_CollectionServiceServicer_to_server(mesh.collections, server)
    documents_pb2_grpc.add_DocumentServiceServicer_to_server(mesh.documents, server)
    jobs_pb2_grpc.add_JobServiceServicer_to_server(mesh.jobs, server)
    chunking_pb2_grpc.add_ChunkingServiceServicer_to_server(Chunking(), server)
    mesh.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield mesh
    finally:
        await server.stop(0)


def _event(sequence: int, **event: Any) -> answers_pb2.AskResponse:
    return answers_pb2.AskResponse(event=events_pb2.AnswerEvent(sequence=sequence, **event))
