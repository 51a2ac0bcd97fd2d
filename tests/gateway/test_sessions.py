"""Conversations and answers, kept in a real Redis."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from redis import Redis

from meshkit.identity import Identity
from ragmesh.gateway.v1 import answers_pb2, events_pb2, feedback_pb2, sessions_pb2
from tests.gateway.calling import once, reason
from tests.gateway.conftest import Gateway, free_port, open_gateway
from tests.gateway.peer_doubles import TINY, Peers

BOB = Identity("acme", "bob", frozenset({"ask"}))
OTHER_ALICE = Identity("globex", "alice", frozenset({"ask", "admin"}))
ODD = Identity("acme", "alice:s1", frozenset({"ask"}))


async def _get(gateway: Gateway, name: str) -> sessions_pb2.Session:
    return (await gateway.sessions.GetSession(sessions_pb2.GetSessionRequest(name=name))).session


async def _list(gateway: Gateway, size: int = 0, token: str = "") -> sessions_pb2.ListSessionsResponse:
    request = sessions_pb2.ListSessionsRequest(page_size=size, page_token=token)
    return await gateway.sessions.ListSessions(request)


async def test_session_has_its_turns(gateway: Gateway) -> None:
    """A name that was not taken begins a session; each question adds a turn with its answer and citations."""
    await gateway.answers.AskOnce(once("How long\n is leave?", session="sessions/s1"))
    answer = (await gateway.answers.AskOnce(once("And then?", session="sessions/s1"))).answer
    session = await _get(gateway, "sessions/s1")
    assert session.title == "How long is leave?"
    assert [turn.question for turn in session.turns] == ["How long\n is leave?", "And then?"]
    assert (session.turns[1].answer, session.turns[1].text) == (answer.name, answer.text)
    assert session.turns[1].citations == answer.citations
    assert session.turns[1].finish_reason == events_pb2.FINISH_REASON_STOP
    assert session.create_time.ToSeconds() <= session.update_time.ToSeconds() < session.expire_time.ToSeconds()


async def test_new_session_gets_a_name(gateway: Gateway) -> None:
    """A question without a session begins one, which the answer names."""
    answer = (await gateway.answers.AskOnce(once())).answer
    assert (await _get(gateway, answer.session)).turns[0].answer == answer.name


async def test_conversation_reaches_the_model(gateway: Gateway) -> None:
    """The second question's prompt holds the first one and its answer."""
    gateway.peers.generator.models = [TINY]
    for question in ("First?", "Second?"):
        await gateway.answers.AskOnce(once(question, session="sessions/s1"))
    said = [message.content for message in gateway.peers.generator.requests[-1].chat.messages]
    assert said[1:3] == ["First?", "Employees get 25 days of leave."]


async def test_sessions_are_listed_last_used_first(gateway: Gateway) -> None:
    """Pages follow one another without gaps or repetitions, without turns."""
    for id in ("a", "b", "c", "a"):
        await gateway.answers.AskOnce(once(session=f"sessions/{id}"))
    first = await _list(gateway, size=2)
    second = await _list(gateway, 2, first.next_page_token)
    assert [s.name for s in (*first.sessions, *second.sessions)] == ["sessions/a", "sessions/c", "sessions/b"]
    assert second.next_page_token == ""
    assert not first.sessions[0].turns


async def test_deleted_session_is_gone(gateway: Gateway) -> None:
    """A deleted session can be neither read, listed nor deleted again; its name begins a new one."""
    await gateway.answers.AskOnce(once(session="sessions/s1"))
    request = sessions_pb2.DeleteSessionRequest(name="sessions/s1")
    await gateway.sessions.DeleteSession(request)
    calls: list[Awaitable[Any]] = [gateway.sessions.DeleteSession(request), _get(gateway, "sessions/s1")]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert reason(raised.value) == "SESSION_NOT_FOUND"
    assert not (await _list(gateway)).sessions
    await gateway.answers.AskOnce(once(session="sessions/s1"))
    assert len((await _get(gateway, "sessions/s1")).turns) == 1


@pytest.mark.parametrize("stranger", [BOB, OTHER_ALICE, ODD])
async def test_nobody_else_sees_a_session_or_its_answers(gateway: Gateway, stranger: Identity) -> None:
    """Another subject, another tenant, and a subject that looks like a key: none finds, lists or deletes it."""
    answer = (await gateway.answers.AskOnce(once(session="sessions/s1"))).answer
    async with gateway.acting(stranger) as other:
        calls: list[Awaitable[Any]] = [
            _get(other, "sessions/s1"),
            other.sessions.DeleteSession(sessions_pb2.DeleteSessionRequest(name="sessions/s1")),
            other.answers.GetAnswer(answers_pb2.GetAnswerRequest(name=answer.name)),
            other.feedback.CreateFeedback(
                feedback_pb2.CreateFeedbackRequest(parent=answer.name, feedback=feedback_pb2.Feedback())
            ),
        ]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
            assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        assert not (await _list(other)).sessions
        await other.answers.AskOnce(once("Mine?", session="sessions/s1"))
        assert [turn.question for turn in (await _get(other, "sessions/s1")).turns] == ["Mine?"]
    assert [turn.question for turn in (await _get(gateway, "sessions/s1")).turns] == ["How long is leave?"]


async def test_page_token_is_its_owners(gateway: Gateway) -> None:
    """A token that was made up, or issued to somebody else, is refused."""
    for id in ("a", "b"):
        await gateway.answers.AskOnce(once(session=f"sessions/{id}"))
    token = (await _list(gateway, size=1)).next_page_token
    async with gateway.acting(BOB) as other:
        for caller, bad in ((gateway, "x"), (other, token)):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await _list(caller, 1, bad)
            assert reason(raised.value) == "INVALID_PAGE_TOKEN"


async def test_turns_and_sessions_are_bounded(redis_url: str, peers: Peers) -> None:
    """Of the turns the last are kept, of the sessions the last used, and nothing of the others; all of it expires."""
    async with open_gateway(redis_url, peers, max_session_turns=2, max_sessions=2, session_ttl_s=60) as gateway:
        for id in ("a", "b", "c"):
            for question in ("1", "2", "3"):
                await gateway.answers.AskOnce(once(question, session=f"sessions/{id}"))
        assert [session.name for session in (await _list(gateway)).sessions] == ["sessions/c", "sessions/b"]
        assert [turn.question for turn in (await _get(gateway, "sessions/c")).turns] == ["2", "3"]
    with Redis.from_url(redis_url) as redis:
        lives = {key: redis.ttl(key) for key in redis.keys("ragmesh:acme:session*")}
    # Two sessions of three keys each, and their index: nothing is left of the one that fell out.
    assert len(lives) == 7
    assert all(0 < ttl <= 60 for ttl in lives.values())


async def test_forgotten_session_is_not_listed(redis_url: str, peers: Peers) -> None:
    """A session past its time can be neither read nor listed."""
    async with open_gateway(redis_url, peers, session_ttl_s=1) as gateway:
        await gateway.answers.AskOnce(once(session="sessions/s1"))
        await asyncio.sleep(1.1)
        assert not (await _list(gateway)).sessions
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await _get(gateway, "sessions/s1")
        assert reason(raised.value) == "SESSION_NOT_FOUND"


async def test_store_that_is_away_is_named(peers: Peers) -> None:
    """Without Redis sessions and answers are UNAVAILABLE, with the reason, and soon."""
    async with open_gateway(f"redis://127.0.0.1:{free_port()}/0", peers) as gateway:
        calls: list[Awaitable[Any]] = [
            _get(gateway, "sessions/s1"),
            _list(gateway),
            gateway.answers.GetAnswer(answers_pb2.GetAnswerRequest(name="answers/a1")),
        ]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
            assert (raised.value.code().name, reason(raised.value)) == ("UNAVAILABLE", "STORE_UNAVAILABLE")
