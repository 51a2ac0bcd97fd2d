"""A caller's end of Converse."""

import asyncio
from typing import Any

import grpc
import pytest

from ragmesh.gateway.v1 import answers_pb2, events_pb2
from tests.gateway.calling import ask
from tests.gateway.conftest import Gateway

INTERRUPT = answers_pb2.ConverseRequest(interrupt=answers_pb2.ConverseRequest.Interrupt())


def asking(question: str, **fields: Any) -> answers_pb2.ConverseRequest:
    """A question in the session `s1`."""
    return answers_pb2.ConverseRequest(ask=ask(question, **{"session": "sessions/s1", **fields}))


def saying(**fields: Any) -> answers_pb2.ConverseRequest:
    """Any other message."""
    return answers_pb2.ConverseRequest(**fields)


class Conversation:
    """A call of Converse by a caller who writes and reads in turns."""

    def __init__(self, gateway: Gateway) -> None:
        self.call = gateway.answers.Converse()

    async def say(self, *messages: answers_pb2.ConverseRequest) -> None:
        for message in messages:
            await self.call.write(message)

    async def next(self) -> events_pb2.AnswerEvent:
        response = await self.call.read()
        assert isinstance(response, answers_pb2.ConverseResponse)
        return response.event

    async def until(self, kind: str) -> list[events_pb2.AnswerEvent]:
        """The events up to the next one of the kind."""
        events: list[events_pb2.AnswerEvent] = []
        async with asyncio.timeout(10):
            while not events or events[-1].WhichOneof("event") != kind:
                events.append(await self.next())
        return events

    async def failure(self) -> tuple[list[events_pb2.AnswerEvent], grpc.aio.AioRpcError]:
        """The events up to the error that ends the call."""
        events: list[events_pb2.AnswerEvent] = []
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async with asyncio.timeout(10):
                while isinstance(response := await self.call.read(), answers_pb2.ConverseResponse):
                    events.append(response.event)
        return events, raised.value

    async def end(self) -> None:
        """Say no more, and see the call end well."""
        await self.call.done_writing()
        assert await self.call.read() is grpc.aio.EOF
        assert await self.call.code() is grpc.StatusCode.OK
