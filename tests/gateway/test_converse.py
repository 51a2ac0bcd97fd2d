"""A conversation on one stream."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from meshkit.errors import Unavailable
from ragmesh.gateway.v1 import answers_pb2, events_pb2
from tests.gateway.calling import ask, reason
from tests.gateway.conftest import Gateway
from tests.gateway.peer_doubles import Script

INTERRUPT = answers_pb2.ConverseRequest(interrupt=answers_pb2.ConverseRequest.Interrupt())


def _ask(question: str) -> answers_pb2.ConverseRequest:
    return answers_pb2.ConverseRequest(ask=ask(question, session="sessions/s1"))


def _message(**fields: Any) -> answers_pb2.ConverseRequest:
    return answers_pb2.ConverseRequest(**fields)


class Conversation:
    """A caller's end of the stream."""

    def __init__(self, gateway: Gateway) -> None:
        self.call = gateway.answers.Converse()

    async def say(self, *messages: answers_pb2.ConverseRequest) -> None:
        for message in messages:
            await self.call.write(message)

    async def until(self, kind: str) -> list[events_pb2.AnswerEvent]:
        """The events up to the next one of the kind."""
        events: list[events_pb2.AnswerEvent] = []
        while not events or events[-1].WhichOneof("event") != kind:
            response = await self.call.read()
            assert isinstance(response, answers_pb2.ConverseResponse)
            events.append(response.event)
        return events

    async def end(self) -> None:
        """Say no more, and see the call end well."""
        await self.call.done_writing()
        assert await self.call.read() is grpc.aio.EOF
        assert await self.call.code() is grpc.StatusCode.OK


async def _failure(call: grpc.aio.StreamStreamCall) -> tuple[list[events_pb2.AnswerEvent], grpc.aio.AioRpcError]:
    events: list[events_pb2.AnswerEvent] = []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        while isinstance(response := await call.read(), answers_pb2.ConverseResponse):
            events.append(response.event)
    return events, raised.value


async def test_questions_are_answered_one_after_another(gateway: Gateway) -> None:
    """Each answer's events are numbered anew, and both are turns of the session."""
    talk = Conversation(gateway)
    for question in ("First?", "Second?"):
        await talk.say(_ask(question))
        events = await talk.until("final")
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert events[-1].final.question == question
    await talk.end()


async def test_question_asked_before_half_closing_is_answered(gateway: Gateway) -> None:
    """Who asks and says no more gets the whole answer."""
    talk = Conversation(gateway)
    await talk.say(_ask("First?"))
    await talk.call.done_writing()
    assert (await talk.until("final"))[-1].final.text
    assert await talk.call.read() is grpc.aio.EOF


async def test_interrupt_keeps_what_was_said(gateway: Gateway) -> None:
    """An interrupted answer ends at once with what was said; the next question may follow without waiting."""
    gateway.peers.generator.script = Script(tokens=["25 ", "days"], hang=True)
    talk = Conversation(gateway)
    await talk.say(_ask("First?"))
    while (await talk.until("token"))[-1].token.text != "days":
        pass
    gateway.peers.generator.script = Script()
    await talk.say(INTERRUPT, _ask("Second?"))
    first = (await talk.until("final"))[-1].final
    second = (await talk.until("final"))[-1].final
    assert (first.text, first.finish_reason) == ("25 days", events_pb2.FINISH_REASON_INTERRUPTED)
    assert (second.question, second.finish_reason) == ("Second?", events_pb2.FINISH_REASON_STOP)
    async with asyncio.timeout(1):
        await gateway.peers.generator.freed.event.wait()
    await talk.end()


async def test_interrupt_with_nothing_to_stop_is_ignored(gateway: Gateway) -> None:
    """An interrupt before or after an answer does no harm."""
    talk = Conversation(gateway)
    await talk.say(INTERRUPT, _ask("First?"))
    assert (await talk.until("final"))[-1].final.finish_reason == events_pb2.FINISH_REASON_STOP
    await talk.say(INTERRUPT)
    await talk.end()


async def test_second_question_at_once_is_out_of_order(gateway: Gateway) -> None:
    """Asking while an answer is given fails the call, the error event first."""
    gateway.peers.generator.script = Script(tokens=["25 "], hang=True)
    talk = Conversation(gateway)
    await talk.say(_ask("First?"))
    await talk.until("token")
    await talk.say(_ask("Second?"))
    events, error = await _failure(talk.call)
    assert reason(error) == "OUT_OF_ORDER"
    assert events[-1].HasField("error")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (answers_pb2.ConverseRequest(), "INVALID_FIELD"),
        (_message(ask={"question": ""}), "INVALID_FIELD"),
        (_message(acknowledge={"sequence": -1}), "INVALID_FIELD"),
        (_message(tool_result={"id": "x"}), "TOOL_NOT_FOUND"),
        (
            _message(ask={"question": "x", "collection": "collections/nowhere"}),
            "COLLECTION_NOT_FOUND",
        ),
    ],
)
@pytest.mark.parametrize("answering", [False, True])
async def test_bad_message_ends_the_conversation(
    gateway: Gateway, message: answers_pb2.ConverseRequest, why: str, answering: bool
) -> None:
    """A message that cannot be followed fails the call with its reason, between answers and during one."""
    gateway.peers.generator.script = Script(tokens=["25 "], hang=True)
    talk = Conversation(gateway)
    if answering:
        await talk.say(_ask("First?"))
        await talk.until("token")
    await talk.say(message)
    _, error = await _failure(talk.call)
    assert reason(error) == ("OUT_OF_ORDER" if answering and why == "COLLECTION_NOT_FOUND" else why)


async def test_failing_answer_ends_the_conversation(gateway: Gateway) -> None:
    """An answer that breaks tells its error and ends the call with it."""
    gateway.peers.generator.script = Script(tokens=["25 "], error=Unavailable("ENGINE_UNAVAILABLE", "died"))
    talk = Conversation(gateway)
    await talk.say(_ask("First?"))
    events, error = await _failure(talk.call)
    assert events[-1].HasField("error")
    assert reason(error) == "ENGINE_UNAVAILABLE"


async def test_leaving_a_conversation_frees_the_engine(gateway: Gateway) -> None:
    """A caller who cancels in mid-answer holds nothing."""
    gateway.peers.generator.script = Script(tokens=["25 "], hang=True)

    async def asked() -> AsyncIterator[answers_pb2.ConverseRequest]:
        yield _ask("First?")
        await asyncio.Event().wait()

    call = gateway.answers.Converse(asked())
    async for response in call:
        if response.event.HasField("token"):
            break
    call.cancel()
    async with asyncio.timeout(1):
        await gateway.peers.generator.freed.event.wait()
