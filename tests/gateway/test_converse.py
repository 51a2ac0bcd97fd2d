"""A conversation on one stream."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from meshkit.errors import Unavailable
from ragmesh.gateway.v1 import answers_pb2, events_pb2, sessions_pb2
from tests.gateway.calling import reason
from tests.gateway.conftest import Gateway, open_gateway
from tests.gateway.conversation import INTERRUPT, Conversation, asking, saying
from tests.gateway.peer_doubles import Peers, Script


async def test_questions_are_answered_one_after_another(gateway: Gateway) -> None:
    """Each answer's events are numbered anew, and both are turns of the session."""
    talk = Conversation(gateway)
    for question in ("First?", "Second?"):
        await talk.say(asking(question))
        events = await talk.until("final")
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert events[-1].final.question == question
    await talk.end()


async def test_question_asked_before_half_closing_is_answered(gateway: Gateway) -> None:
    """Who asks and says no more gets the whole answer."""
    talk = Conversation(gateway)
    await talk.say(asking("First?"))
    await talk.call.done_writing()
    assert (await talk.until("final"))[-1].final.text
    assert await talk.call.read() is grpc.aio.EOF


async def test_interrupt_keeps_what_was_said(gateway: Gateway) -> None:
    """An interrupted answer ends at once with what was said; the next question may follow without waiting."""
    gateway.peers.generator.script = Script(tokens=["25 ", "days"], hang=True)
    talk = Conversation(gateway)
    await talk.say(asking("First?"))
    while (await talk.until("token"))[-1].token.text != "days":
        pass
    gateway.peers.generator.script = Script()
    await talk.say(INTERRUPT, asking("Second?"))
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
    await talk.say(INTERRUPT, asking("First?"))
    assert (await talk.until("final"))[-1].final.finish_reason == events_pb2.FINISH_REASON_STOP
    await talk.say(INTERRUPT)
    await talk.end()


async def test_refinement_begins_the_answer_anew(gateway: Gateway) -> None:
    """The answer under way is kept as interrupted; the refined question's follows on the same stream and session."""
    gateway.peers.generator.script = Script(tokens=["25 "], hang=True)
    talk = Conversation(gateway)
    await talk.say(asking("How long?", session="", retrieval={"filter": 'lang = "en"'}, request_id="r1"))
    started = (await talk.until("token"))[0].started
    gateway.peers.generator.script = Script()
    await talk.say(saying(refine={"question": "For interns.", "filter": "page > 1 OR page = 0"}))
    first = (await talk.until("final"))[-1].final
    events = await talk.until("final")
    assert (first.text, first.finish_reason) == ("25 ", events_pb2.FINISH_REASON_INTERRUPTED)
    assert (events[0].sequence, events[0].started.session) == (1, started.session)
    assert events[-1].final.question == "How long? For interns."
    assert events[-1].final.finish_reason == events_pb2.FINISH_REASON_STOP
    assert gateway.peers.retriever.requests[-1].filter == '(lang = "en") AND (page > 1 OR page = 0)'
    turns = (await gateway.sessions.GetSession(sessions_pb2.GetSessionRequest(name=started.session))).session.turns
    assert [turn.question for turn in turns] == ["How long?", "How long? For interns."]
    await talk.end()


async def test_refinement_that_comes_too_late_refines_the_last_question(gateway: Gateway) -> None:
    """It crossed the answer's last event; a second one refines what the first one made."""
    talk = Conversation(gateway)
    await talk.say(asking("How long?"))
    await talk.until("final")
    for more, whole in (("For interns.", "How long? For interns."), ("Now.", "How long? For interns. Now.")):
        await talk.say(saying(refine={"question": more}))
        assert (await talk.until("final"))[-1].final.question == whole
    await talk.end()


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([saying(refine={"question": "x"})], "OUT_OF_ORDER"),
        ([asking("x" * 32768), saying(refine={"question": "x"})], "INVALID_FIELD"),
    ],
)
async def test_refinement_that_cannot_be_made_ends_the_conversation(
    gateway: Gateway, messages: list[answers_pb2.ConverseRequest], why: str
) -> None:
    """There must be a question, and the two together must not be too long."""
    talk = Conversation(gateway)
    await talk.say(*messages)
    _, error = await talk.failure()
    assert reason(error) == why


def _acknowledge(sequence: int) -> answers_pb2.ConverseRequest:
    return saying(acknowledge={"sequence": sequence})


async def test_who_acknowledges_is_waited_for(redis_url: str, peers: Peers) -> None:
    """No more events are sent than the window has beyond the last acknowledged one; what is not sent yet cannot be."""
    peers.generator.script = Script(tokens=[f"{n} " for n in range(100)])
    async with open_gateway(redis_url, peers, buffer_events=16) as gateway:
        talk = Conversation(gateway)
        await talk.say(_acknowledge(0), asking("How long?"))
        heard = [await talk.next() for _ in range(16)]
        coming = asyncio.create_task(talk.next())
        await asyncio.wait({coming}, timeout=0.1)
        assert not coming.done()
        await talk.say(_acknowledge(999))
        heard += [await coming, *[await talk.next() for _ in range(15)]]
        coming = asyncio.create_task(talk.next())
        await asyncio.wait({coming}, timeout=0.1)
        assert not coming.done()
        await talk.say(INTERRUPT)
        heard += [await coming, *await talk.until("final")]
        assert [event.sequence for event in heard] == list(range(1, len(heard) + 1))
        await talk.end()


async def test_who_says_no_more_is_not_waited_for(redis_url: str, peers: Peers) -> None:
    """Whoever half-closes cannot acknowledge, and gets the rest at once."""
    peers.generator.script = Script(tokens=[f"{n} " for n in range(100)])
    async with open_gateway(redis_url, peers, buffer_events=16) as gateway:
        talk = Conversation(gateway)
        await talk.say(_acknowledge(0), asking("How long?"))
        await talk.call.done_writing()
        assert len(await talk.until("final")) > 100


async def test_second_question_at_once_is_out_of_order(gateway: Gateway) -> None:
    """Asking while an answer is given fails the call, the error event first."""
    gateway.peers.generator.script = Script(tokens=["25 "], hang=True)
    talk = Conversation(gateway)
    await talk.say(asking("First?"))
    await talk.until("token")
    await talk.say(asking("Second?"))
    events, error = await talk.failure()
    assert reason(error) == "OUT_OF_ORDER"
    assert events[-1].HasField("error")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (answers_pb2.ConverseRequest(), "INVALID_FIELD"),
        (saying(ask={"question": ""}), "INVALID_FIELD"),
        (saying(acknowledge={"sequence": -1}), "INVALID_FIELD"),
        (saying(tool_result={"id": "x"}), "TOOL_NOT_FOUND"),
        (
            saying(ask={"question": "x", "collection": "collections/nowhere"}),
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
        await talk.say(asking("First?"))
        await talk.until("token")
    await talk.say(message)
    _, error = await talk.failure()
    assert reason(error) == ("OUT_OF_ORDER" if answering and why == "COLLECTION_NOT_FOUND" else why)


async def test_failing_answer_ends_the_conversation(gateway: Gateway) -> None:
    """An answer that breaks tells its error and ends the call with it."""
    gateway.peers.generator.script = Script(tokens=["25 "], error=Unavailable("ENGINE_UNAVAILABLE", "died"))
    talk = Conversation(gateway)
    await talk.say(asking("First?"))
    events, error = await talk.failure()
    assert events[-1].HasField("error")
    assert reason(error) == "ENGINE_UNAVAILABLE"


async def test_leaving_a_conversation_frees_the_engine(gateway: Gateway) -> None:
    """A caller who cancels in mid-answer holds nothing."""
    gateway.peers.generator.script = Script(tokens=["25 "], hang=True)

    async def asked() -> AsyncIterator[answers_pb2.ConverseRequest]:
        yield asking("First?")
        await asyncio.Event().wait()

    call = gateway.answers.Converse(asked())
    async for response in call:
        if response.event.HasField("token"):
            break
    call.cancel()
    async with asyncio.timeout(1):
        await gateway.peers.generator.freed.event.wait()
