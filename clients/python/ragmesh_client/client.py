"""An async client over the generated stubs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from typing import Self

from ragmesh.common.v1 import server_pb2
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
from ragmesh.retriever.v1 import retriever_pb2, retriever_pb2_grpc
from ragmesh_client.connection import full_name
from ragmesh_client.events import Event
from ragmesh_client.feedback import FeedbackCalls
from ragmesh_client.intake import Intake
from ragmesh_client.jobs import Jobs
from ragmesh_client.resuming import Patience
from ragmesh_client.strategies import Strategies
from ragmesh_client.taking_up import Call, taken_up, told


class Client(Intake, Jobs, Strategies, FeedbackCalls):
    """Calls a mesh on behalf of one token. Lives as an async context manager, which closes the connection.

    Collections, documents and sessions are given by name (`collections/handbook`) or by its last part
    (`handbook`). Every method raises `RagmeshError`.
    """

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._answers = answers_pb2_grpc.AnswerServiceStub(self.channel)
        self._sessions = sessions_pb2_grpc.SessionServiceStub(self.channel)
        self._mesh = mesh_pb2_grpc.MeshServiceStub(self.channel)
        self._retriever = retriever_pb2_grpc.RetrieverServiceStub(self.channel)
        return self

    # --- Answers ---

    async def ask(
        self,
        question: str,
        collection: str,
        *,
        session: str | None = None,
        model: str = "",
        retrieval: answers_pb2.RetrievalOptions | None = None,
        generation: answers_pb2.GenerationOptions | None = None,
        timeout_s: float | None = None,
        linger_s: float = 0.0,
    ) -> AsyncGenerator[Event, None]:
        """Streams the events of an answer, tokens as they are made; the last is `Final`.

        Leaving the loop early stops the work in the mesh. A failure in mid-answer is yielded as `Failed`,
        then raised; a stream that is cut off raises `UnavailableError`. With `linger_s` the mesh goes on
        with the answer for so long after a break, and the stream is taken up again where it broke, by itself; an answer
        that is left early goes on for as long too.
        """
        request = answers_pb2.AskRequest(
            question=question,
            collection=full_name("collections", collection),
            session=full_name("sessions", session) if session else "",
            model=model,
            retrieval=retrieval,
            generation=generation,
        )
        time_s = timeout_s or self.timeout_s
        if linger_s:
            request.linger.FromTimedelta(timedelta(seconds=linger_s))
            events = taken_up(partial(self._ask, request), self._resume, time_s, Patience())
        else:
            events = told(self._ask(request, time_s))
        async with aclosing(events):
            async for event in events:
                yield event

    async def ask_once(
        self, question: str, collection: str, *, session: str | None = None, model: str = ""
    ) -> events_pb2.Answer:
        """Answers a question in one message."""
        ask = answers_pb2.AskRequest(
            question=question,
            collection=full_name("collections", collection),
            session=full_name("sessions", session) if session else "",
            model=model,
        )
        return (await self.call(self._answers.AskOnce, answers_pb2.AskOnceRequest(ask=ask))).answer

    async def get_answer(self, name: str) -> events_pb2.Answer:
        """Reads an answer again."""
        request = answers_pb2.GetAnswerRequest(name=full_name("answers", name))
        return (await self.call(self._answers.GetAnswer, request)).answer

    async def resume_answer(self, name: str, *, after_sequence: int = 0) -> AsyncGenerator[Event, None]:
        """An answer's events from one on, and the rest as it comes; ends as `ask` does."""
        request = answers_pb2.ResumeAnswerRequest(name=full_name("answers", name), after_sequence=after_sequence)
        async with aclosing(told(self._resume(request, self.timeout_s))) as events:
            async for event in events:
                yield event

    async def explain_answer(self, name: str) -> answers_pb2.ExplainAnswerResponse:
        """How an answer came about."""
        request = answers_pb2.ExplainAnswerRequest(name=full_name("answers", name))
        return await self.call(self._answers.ExplainAnswer, request)

    async def replay_answer(
        self,
        name: str,
        *,
        model: str = "",
        retrieval: answers_pb2.RetrievalOptions | None = None,
        generation: answers_pb2.GenerationOptions | None = None,
        plan: answers_pb2.PlanOptions | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Asks an answer's question again, with other options where given; goes on and ends as `ask` does."""
        request = answers_pb2.ReplayAnswerRequest(
            name=full_name("answers", name), model=model, retrieval=retrieval, generation=generation, plan=plan
        )
        call = self._answers.ReplayAnswer(request, timeout=self.timeout_s, metadata=self.metadata)
        async with aclosing(told(call)) as events:
            async for event in events:
                yield event

    def _ask(self, request: answers_pb2.AskRequest, timeout_s: float) -> Call:
        return self._answers.Ask(request, timeout=timeout_s, metadata=self.metadata)

    def _resume(self, request: answers_pb2.ResumeAnswerRequest, timeout_s: float) -> Call:
        return self._answers.ResumeAnswer(request, timeout=timeout_s, metadata=self.metadata)

    # --- Search ---

    async def search(
        self,
        query: str,
        collection: str,
        *,
        mode: retriever_pb2.SearchMode.ValueType = retriever_pb2.SEARCH_MODE_HYBRID,
        top_k: int = 10,
        filter: str = "",  # the contract's word
        explain: bool = False,
    ) -> retriever_pb2.SearchResponse:
        """The chunks that best answer a query, best first."""
        request = retriever_pb2.SearchRequest(
            collection=full_name("collections", collection),
            query=query,
            mode=mode,
            top_k=top_k,
            filter=filter,
            explain=explain,
        )
        return await self.call(self._retriever.Search, request)

    # --- Sessions ---

    async def get_session(self, session: str) -> sessions_pb2.Session:
        """Reads a conversation with its turns."""
        request = sessions_pb2.GetSessionRequest(name=full_name("sessions", session))
        return (await self.call(self._sessions.GetSession, request)).session

    async def list_sessions(self) -> AsyncGenerator[sessions_pb2.Session, None]:
        """All conversations of the caller, last used first, without their turns."""
        request = sessions_pb2.ListSessionsRequest()
        while True:
            page = await self.call(self._sessions.ListSessions, request)
            for session in page.sessions:
                yield session
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def delete_session(self, session: str) -> None:
        """Deletes a conversation."""
        request = sessions_pb2.DeleteSessionRequest(name=full_name("sessions", session))
        await self.call(self._sessions.DeleteSession, request)

    # --- The mesh ---

    async def status(self) -> Sequence[server_pb2.ServerInfo]:
        """Each server's health, version and load, the gateway first."""
        return (await self.call(self._mesh.GetMeshStatus, mesh_pb2.GetMeshStatusRequest())).servers

    async def models(self) -> Sequence[generator_pb2.ModelInfo]:
        """The models that questions can name, the default one first."""
        return (await self.call(self._mesh.ListModels, mesh_pb2.ListModelsRequest())).models
