"""Equal questions asked at the same time share one generation, and nothing else."""

import asyncio
from typing import Any

import pytest

from meshkit.identity import Identity
from ragmesh.gateway.v1 import answers_pb2, events_pb2, sessions_pb2
from tests.gateway.calling import ask, heard
from tests.gateway.conftest import Gateway
from tests.gateway.peer_doubles import Script

BOB = Identity("acme", "bob", frozenset({"ask"}))
READER = Identity("acme", "bob", frozenset({"ask", "search"}))
GLOBEX = Identity("globex", "alice", frozenset({"ask"}))
BYPASS = answers_pb2.CACHE_POLICY_BYPASS
TEXT = "Employees get 25 days of leave. [1]"


async def _both(gateway: Gateway, other: Gateway, **fields: Any) -> list[list[events_pb2.AnswerEvent]]:
    """The events of the same question, asked by both before the engine says anything."""
    turns = asyncio.Semaphore(0)
    gateway.peers.generator.script = Script(turns=turns)
    begun = [aiter(caller.answers.Ask(ask(**fields))) for caller in (gateway, other)]
    first = await asyncio.gather(*map(anext, begun))
    for _ in range(100):
        turns.release()
    rest = await asyncio.gather(*map(heard, begun))
    return [[one.event, *others] for one, others in zip(first, rest, strict=True)]


async def test_equal_questions_share_one_generation(gateway: Gateway) -> None:
    """Each caller has an answer, a session and numbers of its own, and the same text, hits and citations."""
    async with gateway.acting(BOB) as other:
        first, second = await _both(gateway, other)
        for events in (first, second):
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            assert events[0].started.answer == events[-1].final.name
        mine, yours = first[-1].final, second[-1].final
        assert (mine.text, mine.citations, mine.usage) == (yours.text, yours.citations, yours.usage)
        assert mine.text == TEXT
        assert {mine.name, mine.session}.isdisjoint({yours.name, yours.session})
        read = await other.answers.GetAnswer(answers_pb2.GetAnswerRequest(name=yours.name))
        assert read.answer == yours
    assert [event.retrieved for event in first] == [event.retrieved for event in second]
    assert len(gateway.peers.generator.requests) == 1


async def test_first_one_may_leave(gateway: Gateway) -> None:
    """The second caller gets the whole answer although the one who asked first has left."""
    turns = asyncio.Semaphore(1)
    gateway.peers.generator.script = Script(turns=turns)
    first = gateway.answers.Ask(ask())
    await anext(aiter(first))
    second = aiter(gateway.answers.Ask(ask()))
    await anext(second)
    first.cancel()
    for _ in range(100):
        turns.release()
    assert (await heard(second))[-1].final.text == TEXT
    assert len(gateway.peers.generator.requests) == 1


async def test_engine_is_free_when_all_have_left(gateway: Gateway) -> None:
    """After the last of those who shared it nobody holds the engine."""
    gateway.peers.generator.script = Script(tokens=["25 days. ", "Or so."], hang=True)
    calls = [gateway.answers.Ask(ask()) for _ in range(3)]
    for call in calls:
        async for response in call:
            if response.event.HasField("token"):
                break
    for call in calls:
        assert not gateway.peers.generator.freed.event.is_set()
        call.cancel()
    async with asyncio.timeout(1):
        await gateway.peers.generator.freed.event.wait()
    assert len(gateway.peers.generator.requests) == 1


@pytest.mark.parametrize(
    ("caller", "fields"),
    [
        (GLOBEX, {}),
        (READER, {}),
        (BOB, {"cache": BYPASS}),
        (BOB, {"session": "sessions/s1"}),
        (BOB, {"tools": [{"tool": "weather"}]}),
    ],
)
async def test_others_share_nothing(gateway: Gateway, caller: Identity, fields: dict[str, Any]) -> None:
    """Another tenant, other scopes, no cache wanted, a conversation, own tools: each has a generation of its own."""
    async with gateway.acting(caller) as other:
        await _both(gateway, other, **fields)
    assert len(gateway.peers.generator.requests) == 2


async def test_request_id_names_one_answer_at_once(gateway: Gateway) -> None:
    """Two calls with the same request id, the second during the first, have the same events and one turn."""
    first, second = await _both(gateway, gateway, request_id="r1")
    assert first == second
    assert len(gateway.peers.generator.requests) == 1


async def test_impatient_caller_takes_nobody_along(gateway: Gateway) -> None:
    """Who has much more time than the one who asked first does not follow its answer, which is cut short."""
    gateway.peers.retriever.delay_s = 1.0
    first = asyncio.create_task(heard(gateway.answers.Ask(ask(), timeout=3)))
    while not gateway.peers.retriever.requests:
        await asyncio.sleep(0.01)
    events = await heard(gateway.answers.Ask(ask()))
    await asyncio.gather(first, return_exceptions=True)
    assert events[-1].final.text == TEXT
    assert len(gateway.peers.retriever.requests) == 2


async def test_call_that_the_edge_repeats_has_one_turn(gateway: Gateway) -> None:
    """Asked again under the same call's id, the question has the same answer, session and turn; in another call not."""
    names, sessions = set[str](), set[str]()
    for call in ("a", "a", "b"):
        events = await heard(gateway.answers.Ask(ask(), metadata=(("x-request-id", call),)))
        names.add(events[-1].final.name)
        sessions.add(events[-1].final.session)
    assert (len(names), len(sessions)) == (2, 2)
    listed = await gateway.sessions.ListSessions(sessions_pb2.ListSessionsRequest())
    assert {session.name for session in listed.sessions} == sessions
    for name in sessions:
        session = await gateway.sessions.GetSession(sessions_pb2.GetSessionRequest(name=name))
        assert len(session.session.turns) == 1
