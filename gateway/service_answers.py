"""AnswerService: messages to questions, and the events of answers to messages."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from gateway.answers import Question
from gateway.awaiting import Awaiting
from gateway.conversing import Acknowledge, Interrupt, Refine, Said, converse
from gateway.relaying import Relay
from gateway.requests import read_question, read_replay, read_tool_result, replay_deadline
from gateway.resuming import Resuming
from gateway.wire_events import write_answer, write_event, write_explanation
from meshkit import deadline
from meshkit.identity import current, require_scope
from ragmesh.gateway.v1 import answers_pb2, answers_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class AnswerService(answers_pb2_grpc.AnswerServiceServicer):
    """Answers questions, and tells how answers came about."""

    def __init__(self, resuming: Resuming, window_events: int) -> None:
        self._underway = resuming.underway
        self._resuming = resuming
        self._window_events = window_events

    async def Ask(self, request: answers_pb2.AskRequest, context: Context) -> AsyncIterator[answers_pb2.AskResponse]:
        require_scope("ask")
        async with self._underway.ask(read_question(request), current()) as events:
            async for event in events:
                yield answers_pb2.AskResponse(event=write_event(event))

    async def AskOnce(self, request: answers_pb2.AskOnceRequest, context: Context) -> answers_pb2.AskOnceResponse:
        require_scope("ask")
        answer = await self._underway.once(read_question(request.ask), current())
        return answers_pb2.AskOnceResponse(answer=write_answer(answer))

    async def Converse(
        self, request_iterator: AsyncIterator[answers_pb2.ConverseRequest], context: Context
    ) -> AsyncIterator[answers_pb2.ConverseResponse]:
        require_scope("ask")
        async with aclosing(converse(_said(request_iterator), self._relay, self._window_events)) as events:
            async for event in events:
                yield answers_pb2.ConverseResponse(event=write_event(event))

    async def ResumeAnswer(
        self, request: answers_pb2.ResumeAnswerRequest, context: Context
    ) -> AsyncIterator[answers_pb2.ResumeAnswerResponse]:
        require_scope("ask")
        async with aclosing(self._resuming.resume(current(), _id(request.name), request.after_sequence)) as events:
            async for event in events:
                yield answers_pb2.ResumeAnswerResponse(event=write_event(event))

    async def GetAnswer(self, request: answers_pb2.GetAnswerRequest, context: Context) -> answers_pb2.GetAnswerResponse:
        require_scope("ask")
        answer = await self._resuming.answer(current(), _id(request.name))
        return answers_pb2.GetAnswerResponse(answer=write_answer(answer))

    async def ExplainAnswer(
        self, request: answers_pb2.ExplainAnswerRequest, context: Context
    ) -> answers_pb2.ExplainAnswerResponse:
        require_scope("ask")
        return write_explanation(*await self._resuming.explain(current(), _id(request.name)))

    async def ReplayAnswer(
        self, request: answers_pb2.ReplayAnswerRequest, context: Context
    ) -> AsyncIterator[answers_pb2.ReplayAnswerResponse]:
        require_scope("ask")
        question = read_replay(request, await self._resuming.question(current(), _id(request.name)))
        with deadline.using(replay_deadline(request)):
            relay = self._underway.ask(question, current())
        async with relay as events:
            async for event in events:
                yield answers_pb2.ReplayAnswerResponse(event=write_event(event))

    def _relay(self, question: Question, awaiting: Awaiting) -> Relay:
        return self._underway.ask(question, current(), awaiting)


def _id(name: str) -> str:
    return name.removeprefix("answers/")


async def _said(requests: AsyncIterator[answers_pb2.ConverseRequest]) -> AsyncIterator[Said]:
    """What the messages say; one that says nothing has been refused."""
    async for request in requests:
        match request.WhichOneof("message"):
            case "ask":
                yield read_question(request.ask)
            case "interrupt":
                yield Interrupt()
            case "refine":
                yield Refine(request.refine.question, request.refine.filter)
            case "tool_result":
                yield read_tool_result(request.tool_result)
            case "acknowledge":
                yield Acknowledge(request.acknowledge.sequence)
