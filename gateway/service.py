"""The services around the answers: messages to dataclasses and back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import grpc

from gateway.answers import Answer, AnswerStore, load_answer
from gateway.feedback import Feedback, FeedbackStore, Rating
from gateway.models import Models
from gateway.peers import ServerPeer
from gateway.sessions import SessionStore
from gateway.wire import read_citation, write_feedback, write_model, write_session
from meshkit import pagination
from meshkit.errors import not_found
from meshkit.identity import current, require_scope
from ragmesh.gateway.v1 import (
    feedback_pb2,
    feedback_pb2_grpc,
    mesh_pb2,
    mesh_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
)

Context = grpc.aio.ServicerContext[Any, Any]


class SessionService(sessions_pb2_grpc.SessionServiceServicer):
    """Shows callers their own conversations."""

    def __init__(self, sessions: SessionStore) -> None:
        self._sessions = sessions

    async def GetSession(
        self, request: sessions_pb2.GetSessionRequest, context: Context
    ) -> sessions_pb2.GetSessionResponse:
        require_scope("ask")
        session = await self._sessions.load(current(), request.name.removeprefix("sessions/"))
        if session is None:
            raise not_found("session", request.name, "SESSION_NOT_FOUND")
        return sessions_pb2.GetSessionResponse(session=write_session(session))

    async def ListSessions(
        self, request: sessions_pb2.ListSessionsRequest, context: Context
    ) -> sessions_pb2.ListSessionsResponse:
        require_scope("ask")
        owner = current()
        scope = f"ListSessions {owner.tenant} {owner.subject}"
        cursor = pagination.decode(request.page_token, scope)
        page = await self._sessions.list(owner, cursor, pagination.page_size(request.page_size))
        return sessions_pb2.ListSessionsResponse(
            sessions=map(write_session, page.sessions),
            next_page_token=pagination.encode(page.cursor, scope) if page.cursor else "",
        )

    async def DeleteSession(
        self, request: sessions_pb2.DeleteSessionRequest, context: Context
    ) -> sessions_pb2.DeleteSessionResponse:
        require_scope("ask")
        if not await self._sessions.delete(current(), request.name.removeprefix("sessions/")):
            raise not_found("session", request.name, "SESSION_NOT_FOUND")
        return sessions_pb2.DeleteSessionResponse()


class FeedbackService(feedback_pb2_grpc.FeedbackServiceServicer):
    """Takes callers' feedback on their own answers and shows a tenant's to its administrators."""

    def __init__(self, feedback: FeedbackStore, answers: AnswerStore) -> None:
        self._feedback = feedback
        self._answers = answers

    async def CreateFeedback(
        self, request: feedback_pb2.CreateFeedbackRequest, context: Context
    ) -> feedback_pb2.CreateFeedbackResponse:
        require_scope("ask")
        owner = current()
        answer = await load_answer(self._answers, owner, request.parent)
        feedback = _read_feedback(request.feedback, answer)
        named = replace(feedback, id=await self._feedback.add(owner.tenant, feedback))
        return feedback_pb2.CreateFeedbackResponse(feedback=write_feedback(named))

    async def ListFeedback(
        self, request: feedback_pb2.ListFeedbackRequest, context: Context
    ) -> feedback_pb2.ListFeedbackResponse:
        require_scope("admin")
        tenant = current().tenant
        scope = f"ListFeedback {tenant}"
        cursor = pagination.decode(request.page_token, scope)
        size = pagination.page_size(request.page_size)
        feedback, behind = await self._feedback.list(tenant, cursor, size)
        return feedback_pb2.ListFeedbackResponse(
            feedback=map(write_feedback, feedback),
            next_page_token=pagination.encode(behind, scope) if behind else "",
        )

    async def ExportFeedback(
        self, request: feedback_pb2.ExportFeedbackRequest, context: Context
    ) -> AsyncIterator[feedback_pb2.ExportFeedbackResponse]:
        require_scope("admin")
        since = request.since.ToDatetime(UTC) if request.HasField("since") else None
        async for feedback in self._feedback.all_since(current().tenant, since):
            yield feedback_pb2.ExportFeedbackResponse(feedback=write_feedback(feedback))


def _read_feedback(message: feedback_pb2.Feedback, answer: Answer) -> Feedback:
    return Feedback(
        id="",
        answer=answer.id,
        rating=Rating(message.rating),
        comment=message.comment,
        question=answer.question,
        text=answer.text,
        create_time=datetime.now(UTC),
        corrected_citations=tuple(map(read_citation, message.corrected_citations)),
    )


class MeshService(mesh_pb2_grpc.MeshServiceServicer):
    """Shows the mesh; the `servers` of now are asked all at once, the gateway itself among them."""

    def __init__(self, servers: Callable[[], Sequence[ServerPeer]], models: Models) -> None:
        self._servers = servers
        self._models = models

    async def GetMeshStatus(
        self, request: mesh_pb2.GetMeshStatusRequest, context: Context
    ) -> mesh_pb2.GetMeshStatusResponse:
        servers = await asyncio.gather(*(server.describe() for server in self._servers()))
        return mesh_pb2.GetMeshStatusResponse(servers=servers)

    async def ListModels(self, request: mesh_pb2.ListModelsRequest, context: Context) -> mesh_pb2.ListModelsResponse:
        models = await self._models.list()
        return mesh_pb2.ListModelsResponse(models=map(write_model, models))
