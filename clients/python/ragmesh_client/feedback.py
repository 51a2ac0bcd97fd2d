"""What people think of answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Self

from google.protobuf import timestamp_pb2

from ragmesh.common.v1 import chunk_pb2
from ragmesh.gateway.v1 import feedback_pb2, feedback_pb2_grpc
from ragmesh_client.connection import Connection, drained, full_name

_RATINGS = {
    None: feedback_pb2.Feedback.RATING_UNSPECIFIED,
    True: feedback_pb2.Feedback.RATING_UP,
    False: feedback_pb2.Feedback.RATING_DOWN,
}


class FeedbackCalls(Connection):
    """The calls about feedback. Who may ask may give it; to read a tenant's takes the scope `admin`."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._feedback = feedback_pb2_grpc.FeedbackServiceStub(self.channel)
        return self

    async def give_feedback(
        self,
        answer: str,
        *,
        up: bool | None = None,
        comment: str = "",
        citations: Sequence[chunk_pb2.Citation] = (),
    ) -> feedback_pb2.Feedback:
        """Records a thumb, words, or what the answer should have cited, on an answer."""
        given = feedback_pb2.Feedback(rating=_RATINGS[up], comment=comment, corrected_citations=citations)
        request = feedback_pb2.CreateFeedbackRequest(parent=full_name("answers", answer), feedback=given)
        return (await self.call(self._feedback.CreateFeedback, request)).feedback

    async def list_feedback(self) -> AsyncGenerator[feedback_pb2.Feedback, None]:
        """All of the tenant's feedback, newest first."""
        request = feedback_pb2.ListFeedbackRequest()
        while True:
            page = await self.call(self._feedback.ListFeedback, request)
            for feedback in page.feedback:
                yield feedback
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def export_feedback(self, since: datetime | None = None) -> AsyncGenerator[feedback_pb2.Feedback, None]:
        """All of the tenant's feedback that was given since, oldest first, on one stream; a naive time is UTC."""
        request = feedback_pb2.ExportFeedbackRequest()
        if since:
            moment = timestamp_pb2.Timestamp()
            moment.FromDatetime(since)
            request.since.CopyFrom(moment)
        call = self._feedback.ExportFeedback(request, timeout=self.timeout_s, metadata=self.metadata)
        async with aclosing(drained(call)) as responses:
            async for response in responses:
                yield response.feedback
