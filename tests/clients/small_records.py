"""What the small mesh keeps: conversations, and what people think of answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import timestamp_pb2

from ragmesh.gateway.v1 import feedback_pb2, feedback_pb2_grpc, sessions_pb2, sessions_pb2_grpc
from tests.clients.answering import check_token, refuse, status


class Sessions(sessions_pb2_grpc.SessionServiceServicer):
    """Two sessions on two pages; the first has a turn and can be deleted."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    async def ListSessions(self, request: Any, context: Any) -> sessions_pb2.ListSessionsResponse:
        await check_token(context)
        if request.page_token:
            return sessions_pb2.ListSessionsResponse(sessions=[sessions_pb2.Session(name="sessions/s2")])
        first = sessions_pb2.Session(name="sessions/s1")
        return sessions_pb2.ListSessionsResponse(sessions=[first], next_page_token="2")

    async def GetSession(self, request: Any, context: Any) -> sessions_pb2.GetSessionResponse:
        await check_token(context)
        if request.name != "sessions/s1":
            await refuse(context, status(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND", "no such session"))
        turn = sessions_pb2.Turn(answer="answers/a1", question="How long?", text="Thirty days. [1]")
        return sessions_pb2.GetSessionResponse(session=sessions_pb2.Session(name=request.name, turns=[turn]))

    async def DeleteSession(self, request: Any, context: Any) -> sessions_pb2.DeleteSessionResponse:
        await check_token(context)
        self.deleted.append(request.name)
        return sessions_pb2.DeleteSessionResponse()


class Feedback(feedback_pb2_grpc.FeedbackServiceServicer):
    """Keeps what is given, on pages of one; a second of its time passes with each."""

    def __init__(self) -> None:
        self.given: list[feedback_pb2.Feedback] = []

    async def CreateFeedback(self, request: Any, context: Any) -> feedback_pb2.CreateFeedbackResponse:
        await check_token(context)
        given = feedback_pb2.Feedback()
        given.CopyFrom(request.feedback)
        given.name = f"{request.parent}/feedback/f{len(self.given)}"
        given.question, given.text = "How long?", "Thirty days. [1]"
        given.create_time.CopyFrom(timestamp_pb2.Timestamp(seconds=len(self.given)))
        self.given.append(given)
        return feedback_pb2.CreateFeedbackResponse(feedback=given)

    async def ListFeedback(self, request: Any, context: Any) -> feedback_pb2.ListFeedbackResponse:
        await check_token(context)
        place = int(request.page_token or 0)
        newest_first = self.given[::-1]
        token = str(place + 1) if place + 1 < len(newest_first) else ""
        return feedback_pb2.ListFeedbackResponse(feedback=newest_first[place : place + 1], next_page_token=token)

    async def ExportFeedback(self, request: Any, context: Any) -> AsyncIterator[feedback_pb2.ExportFeedbackResponse]:
        await check_token(context)
        for given in self.given:
            if given.create_time.seconds >= request.since.seconds:
                yield feedback_pb2.ExportFeedbackResponse(feedback=given)
