"""Answers taken up again: on the replica that makes them, on another one, and after their maker died."""

import asyncio
import os
import sys
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from redis import Redis

from deploy.local.services import serves
from meshkit.errors import Unavailable
from meshkit.identity import Identity
from meshkit.testing import connect
from ragmesh.gateway.v1 import answers_pb2, events_pb2, sessions_pb2
from tests.gateway.calling import ask, heard, reason
from tests.gateway.conftest import ALICE, Gateway, free_port, open_gateway
from tests.gateway.peer_doubles import Peers, Script

BOB = Identity("acme", "bob", frozenset({"ask"}))
LINGERING = ask(session="sessions/s1", linger={"seconds": 30})
SLOW = Script(gap_s=0.1)
TEXT = "Employees get 25 days of leave. [1]"
Events = list[events_pb2.AnswerEvent]


def _resume(gateway: Gateway, name: str, after: int = 0) -> grpc.aio.UnaryStreamCall:
    return gateway.answers.ResumeAnswer(answers_pb2.ResumeAnswerRequest(name=name, after_sequence=after))


async def _leave_at(gateway: Gateway, kind: str, request: answers_pb2.AskRequest) -> Events:
    """The answer's events up to the first one of the kind, behind which the caller leaves."""
    events: Events = []
    call = gateway.answers.Ask(request)
    async for response in call:
        events.append(response.event)
        if response.event.WhichOneof("event") == kind:
            break
    call.cancel()
    return events


async def _turns(gateway: Gateway) -> list[tuple[str, int]]:
    session = await gateway.sessions.GetSession(sessions_pb2.GetSessionRequest(name="sessions/s1"))
    return [(turn.text, turn.finish_reason) for turn in session.session.turns]


async def _broken(call: AsyncIterable[Any]) -> tuple[Events, grpc.aio.AioRpcError]:
    events: Events = []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for response in call:
            events.append(response.event)
    return events, raised.value


def _check_whole(events: Events) -> None:
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].final.text == "".join(event.token.text for event in events) == TEXT


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_broken_stream_goes_on_where_it_broke(redis_url: str, peers: Peers, elsewhere: bool) -> None:
    """On the same replica or on another one: the rest comes, each event once, from one generation, into one turn."""
    peers.generator.script = SLOW
    async with open_gateway(redis_url, peers) as gateway, open_gateway(redis_url, peers) as other:
        begun = await _leave_at(gateway, "token", LINGERING)
        rest = await heard(_resume(other if elsewhere else gateway, begun[0].started.answer, len(begun)))
        _check_whole([*begun, *rest])
        assert len(rest) > 3
        assert len(peers.generator.requests) == 1
        assert await _turns(other) == [(TEXT, events_pb2.FINISH_REASON_STOP)]


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_answer_that_ended_is_told_again(redis_url: str, peers: Peers, elsewhere: bool) -> None:
    """Its events are the same, numbers and times included, from any of them on."""
    async with open_gateway(redis_url, peers) as gateway:
        events = await heard(gateway.answers.Ask(ask()))
        name = events[0].started.answer
        if not elsewhere:
            assert await heard(_resume(gateway, name, 3)) == events[3:]
    async with open_gateway(redis_url, peers) as other:
        assert await heard(_resume(other, name)) == events
        assert await heard(_resume(other, name, len(events))) == []
        _, error = await _broken(_resume(other, name, len(events) + 1))
    assert (error.code().name, reason(error)) == ("INVALID_ARGUMENT", "INVALID_FIELD")


async def test_kept_answer_is_told_without_its_journal(gateway: Gateway, redis_url: str) -> None:
    """After the journal's time the text comes whole; who had read some of it gets the end only."""
    final = (await heard(gateway.answers.Ask(ask())))[-1].final
    with Redis.from_url(redis_url) as redis:
        async with asyncio.timeout(5):
            while not (keys := redis.keys("ragmesh:acme:journal:*")):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        redis.delete(*keys)
    events = await heard(_resume(gateway, final.name))
    _check_whole(events)
    (last,) = await heard(_resume(gateway, final.name, 7))
    assert (last.sequence, last.final, events[-1].final) == (8, final, final)


async def test_without_lingering_the_answer_ends_with_its_reader(gateway: Gateway) -> None:
    """The engine is free, and who comes back is told what was said, as interrupted."""
    gateway.peers.generator.script = Script(tokens=["25 days. ", "Or so."], hang=True)
    begun = await _leave_at(gateway, "token", ask())
    async with asyncio.timeout(1):
        await gateway.peers.generator.freed.event.wait()
    rest = await heard(_resume(gateway, begun[0].started.answer, len(begun)))
    assert rest[-1].final.finish_reason == events_pb2.FINISH_REASON_INTERRUPTED
    assert rest[-1].final.text.startswith("25 days.")


@pytest.mark.parametrize("bound", [{"max_linger_s": 0.2}, {"max_lingering": 0}])
async def test_lingering_has_bounds(redis_url: str, peers: Peers, bound: dict[str, float]) -> None:
    """After the time allowed, and at once where as many linger as may, the engine is free and the turn is kept."""
    peers.generator.script = Script(tokens=["25 days. ", "Or so."], hang=True)
    async with open_gateway(redis_url, peers, resume=bound) as gateway:
        begun = await _leave_at(gateway, "token", LINGERING)
        async with asyncio.timeout(2):
            await peers.generator.freed.event.wait()
        rest = await heard(_resume(gateway, begun[0].started.answer, len(begun)))
        assert rest[-1].final.finish_reason == events_pb2.FINISH_REASON_INTERRUPTED
        ((text, finish_reason),) = await _turns(gateway)
    assert (text[:8], finish_reason) == ("25 days.", events_pb2.FINISH_REASON_INTERRUPTED)


async def test_lingering_answer_is_kept_when_the_gateway_stops(redis_url: str, peers: Peers) -> None:
    """A gateway that is told to stop ends what lingers and writes its end down."""
    peers.generator.script = Script(tokens=["25 days. ", "Or so."], hang=True)
    async with open_gateway(redis_url, peers) as gateway:
        begun = await _leave_at(gateway, "token", LINGERING)
    async with open_gateway(redis_url, peers) as other:
        rest = await heard(_resume(other, begun[0].started.answer, len(begun)))
    assert rest[-1].final.finish_reason == events_pb2.FINISH_REASON_INTERRUPTED


async def test_failure_is_told_again_and_raised(gateway: Gateway, redis_url: str) -> None:
    """An answer that broke ends with the same error for those who come later, and on other replicas."""
    died = Unavailable("ENGINE_UNAVAILABLE", "the engine died")
    gateway.peers.generator.script = Script(tokens=["25 days. ", "Or so."], error=died)
    events, _ = await _broken(gateway.answers.Ask(ask()))
    again, error = await _broken(_resume(gateway, events[0].started.answer))
    assert again == events
    assert reason(error) == "ENGINE_UNAVAILABLE"
    async with open_gateway(redis_url, gateway.peers) as other:
        nothing, error = await _broken(_resume(other, events[0].started.answer, len(events)))
    assert (nothing, reason(error)) == ([], "ENGINE_UNAVAILABLE")


async def test_nobody_else_takes_an_answer_up(gateway: Gateway) -> None:
    """To another caller, and by another name, there is no answer."""
    name = (await heard(gateway.answers.Ask(ask())))[-1].final.name
    async with gateway.acting(BOB) as other:
        for caller, wrong in ((other, name), (gateway, "answers/nowhere")):
            for call in (
                _resume(caller, wrong),
                caller.answers.ReplayAnswer(answers_pb2.ReplayAnswerRequest(name=wrong)),
            ):
                assert reason((await _broken(call))[1]) == "ANSWER_NOT_FOUND"
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await caller.answers.ExplainAnswer(answers_pb2.ExplainAnswerRequest(name=wrong))
            assert reason(raised.value) == "ANSWER_NOT_FOUND"


@asynccontextmanager
async def _gateway_process(redis_url: str, peers: Peers) -> AsyncIterator[tuple[Gateway, asyncio.subprocess.Process]]:
    """A gateway in a process of its own, to be killed."""
    address = f"127.0.0.1:{free_port()}"
    settings = {f"{peer}_TARGET": peers.address for peer in ("RETRIEVER", "GENERATOR", "EMBEDDER", "INGEST")}
    settings |= {"LISTEN": address, "METRICS_LISTEN": "", "REDIS_URL": redis_url, "RESUME__PRODUCER_TTL_S": "0.5"}
    environment = {f"RAGMESH_GATEWAY_{name}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "gateway", env={**os.environ, **environment})
    try:
        async with asyncio.timeout(60):
            while not await serves(address):
                assert process.returncode is None
                await asyncio.sleep(0.05)
        async with connect(address, ALICE) as channel:
            yield Gateway(address, peers, channel), process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _begun(gateway: Gateway, question: str) -> Events:
    """The events up to the first token of an answer that goes on."""
    call = aiter(gateway.answers.Ask(ask(question, session="sessions/s1", linger={"seconds": 30})))
    events = [(await anext(call)).event]
    while not events[-1].HasField("token"):
        events.append((await anext(call)).event)
    return events


async def test_answer_of_a_gateway_that_was_killed(redis_url: str, peers: Peers) -> None:
    """Another replica tells it as far as it got, then that the rest is lost; so it is kept, and its turn."""
    peers.generator.script = Script(tokens=["25 days. ", "Or so."], hang=True)
    async with _gateway_process(redis_url, peers) as (gateway, process), open_gateway(redis_url, peers) as other:
        begun, unread = [await _begun(gateway, question) for question in ("First?", "Second?")]
        name, unread_name = begun[0].started.answer, unread[0].started.answer
        resumed = aiter(_resume(other, name))
        followed = [(await anext(resumed)).event for _ in begun]
        process.kill()
        events, error = await _broken(_resume(other, name))
        assert events[: len(begun)] == begun
        assert events[-1].HasField("error")
        assert (error.code().name, reason(error)) == ("UNAVAILABLE", "ENGINE_UNAVAILABLE")
        rest, _ = await _broken(resumed)
        assert [*followed, *rest] == events
        answer = (await other.answers.GetAnswer(answers_pb2.GetAnswerRequest(name=name))).answer
        assert answer.finish_reason == events_pb2.FINISH_REASON_FAILED
        assert "".join(event.token.text for event in events) == answer.text != ""
        assert await _turns(other) == [
            (answer.text, events_pb2.FINISH_REASON_FAILED),
            ("", events_pb2.FINISH_REASON_INTERRUPTED),
        ]
        settled = await other.answers.GetAnswer(answers_pb2.GetAnswerRequest(name=unread_name))
        assert settled.answer.finish_reason == events_pb2.FINISH_REASON_FAILED
        assert (await _turns(other))[1] == (settled.answer.text, events_pb2.FINISH_REASON_FAILED)
