"""Answers given again, over real channels and a real Redis."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from google.protobuf.json_format import MessageToDict
from redis import Redis

from ragmesh.gateway.v1 import answers_pb2, events_pb2, sessions_pb2
from ragmesh.generator.v1 import generator_pb2
from tests.gateway.calling import ask, heard
from tests.gateway.conftest import ALICE, Gateway, open_gateway
from tests.gateway.peer_doubles import Peers, Script

HANDBOOK = (ALICE.tenant, "collections/handbook")
USE, REFRESH, BYPASS = (
    answers_pb2.CACHE_POLICY_USE,
    answers_pb2.CACHE_POLICY_REFRESH,
    answers_pb2.CACHE_POLICY_BYPASS,
)


@pytest.fixture
async def gateway(redis_url: str, peers: Peers) -> AsyncIterator[Gateway]:
    """A gateway whose collection has a version, so that its answers may be given again."""
    peers.retriever.versions[HANDBOOK] = 1
    async with open_gateway(redis_url, peers) as gateway:
        yield gateway


async def kept_in(redis_url: str, count: int) -> None:
    """Wait until Redis has so many answers to be given again, and their questions."""
    with Redis.from_url(redis_url) as redis:
        while len(redis.keys("ragmesh:*:cached:1:answer:*")) < count or not redis.keys("ragmesh:*:questions:*"):
            await asyncio.sleep(0.01)


async def answered(gateway: Gateway, question: str = "How long is leave?", **fields: object) -> events_pb2.Answer:
    """The answer to the question."""
    return (await heard(gateway.answers.Ask(ask(question, **fields))))[-1].final


async def test_an_equal_question_has_the_same_answer_again(gateway: Gateway, peers: Peers) -> None:
    """The same events but for those of its making, `cached` in the first and the last, and a name of its own."""
    first = await heard(gateway.answers.Ask(ask()))
    again = await heard(gateway.answers.Ask(ask("how long is  LEAVE")))
    kinds = [event.WhichOneof("event") for event in again]
    assert kinds == ["started", "stage", "stage", "retrieved", "token", "citation", "usage", "grounding", "final"]
    assert [event.sequence for event in again] == list(range(1, len(again) + 1))
    assert (first[0].started.cached, again[0].started.cached) == (False, True)
    done = again[2].stage
    assert (done.stage, MessageToDict(done.detail)["hit"], done.HasField("duration")) == ("cache", "exact", True)
    one, other = first[-1].final, again[-1].final
    assert (one.cached, other.cached) == (False, True)
    assert (other.text, other.citations, other.grounding, other.usage) == (
        one.text,
        one.citations,
        one.grounding,
        one.usage,
    )
    assert other.finish_reason == events_pb2.FINISH_REASON_STOP
    assert other.name != one.name
    assert other.session != one.session
    (hits,) = [list(event.retrieved.hits) for event in first if event.HasField("retrieved")]
    assert list(again[3].retrieved.hits) == hits
    assert len(peers.generator.requests) == 1


async def test_an_answer_given_again_is_kept_as_any(gateway: Gateway) -> None:
    """It can be read by its name, and stands in a session of its own under the question as it was asked."""
    await answered(gateway)
    again = await answered(gateway, "How long is leave ?")
    read = await gateway.answers.GetAnswer(answers_pb2.GetAnswerRequest(name=again.name))
    assert read.answer == again
    request = sessions_pb2.GetSessionRequest(name=again.session)
    (turn,) = (await gateway.sessions.GetSession(request)).session.turns
    assert (turn.answer, turn.question, turn.text) == (again.name, "How long is leave ?", again.text)


async def test_another_replica_gives_it_again(gateway: Gateway, peers: Peers, redis_url: str) -> None:
    """Exactly and in other words, out of Redis."""
    await answered(gateway)
    await kept_in(redis_url, 1)
    async with open_gateway(redis_url, peers) as other:
        assert (await answered(other)).cached
        events = await heard(other.answers.Ask(ask("Please tell me how long is the leave?")))
    assert events[-1].final.cached
    detail = MessageToDict(events[2].stage.detail)
    assert detail["hit"] == "semantic"
    assert "question" not in detail
    assert 0.8 < detail["similarity"] < 1
    assert len(peers.generator.requests) == 1


async def test_near_misses_are_answered_anew(gateway: Gateway, redis_url: str) -> None:
    """Letters are near, and the guard says that another thing is asked."""
    await answered(gateway)
    await kept_in(redis_url, 1)
    for question in ("How long was leave?", "How long is sick leave?", "How long is leave 2?", "Who long is leave?"):
        assert not (await answered(gateway, question)).cached


async def test_the_vector_of_a_question_is_handed_on(gateway: Gateway, peers: Peers, redis_url: str) -> None:
    """What the cache had encoded the search does not encode again."""
    await answered(gateway)
    await kept_in(redis_url, 1)
    await answered(gateway, "How much is leave?")
    first, second = peers.retriever.requests
    assert not first.HasField("vector")
    assert (second.vector.dimension, second.vector.count) == (64, 1)


async def test_never_after_the_collection_changed(gateway: Gateway, peers: Peers, redis_url: str) -> None:
    """A new version is a new answer, kept in its turn; one that was searched while it changed is not kept."""
    await answered(gateway)
    await kept_in(redis_url, 1)
    peers.retriever.texts = {"collections/handbook": ["Employees get 30 days of leave."]}
    peers.retriever.versions[HANDBOOK] = 2
    assert not (await answered(gateway, "Please tell me how long is leave?")).cached
    assert not (await answered(gateway, cache=REFRESH)).cached
    peers.retriever.delay_s = 0.2
    asking = asyncio.create_task(answered(gateway, "Who gets leave?"))
    while len(peers.retriever.requests) < 4:
        await asyncio.sleep(0.01)
    peers.retriever.versions[HANDBOOK] = 3
    await asking
    assert not (await answered(gateway, "Who gets leave?")).cached


async def test_what_the_policy_says(gateway: Gateway, peers: Peers) -> None:
    """BYPASS neither takes nor keeps; REFRESH does not take, and what it keeps is taken next."""
    assert not (await answered(gateway, cache=BYPASS)).cached
    assert not (await answered(gateway)).cached
    assert not (await answered(gateway, cache=BYPASS)).cached
    peers.generator.script = Script(tokens=("New. ", "[1]"))
    assert not (await answered(gateway, cache=REFRESH)).cached
    again = await answered(gateway, cache=USE)
    assert (again.cached, again.text) == (True, "New. [1]")


async def test_what_is_not_given_again(gateway: Gateway, peers: Peers) -> None:
    """Answers cut off, abstentions, what goes on a conversation."""
    peers.generator.script = Script(finish=generator_pb2.FINISH_REASON_LENGTH)
    await answered(gateway, "Who is cut off?")
    assert not (await answered(gateway, "Who is cut off?")).cached
    peers.generator.script = Script(tokens=(), finish=generator_pb2.FINISH_REASON_ABSTAINED)
    await answered(gateway, "Who is unknown?")
    assert not (await answered(gateway, "Who is unknown?")).cached
    peers.generator.script = Script()
    session = (await answered(gateway)).session
    assert not (await answered(gateway, session=session)).cached


async def test_without_the_store_there_is_an_answer(peers: Peers) -> None:
    """A cache that does not answer has nothing, and costs no answer."""
    peers.retriever.versions[HANDBOOK] = 1
    async with open_gateway("redis://127.0.0.1:1/0", peers) as gateway:
        final = await answered(gateway)
    assert final.text == "Employees get 25 days of leave. [1]"


async def test_the_cache_can_be_left_out(redis_url: str, peers: Peers) -> None:
    """By a setting; likeness alone by a threshold above 1."""
    peers.retriever.versions[HANDBOOK] = 1
    async with open_gateway(redis_url, peers, cache={"enabled": False}) as gateway:
        await answered(gateway)
        assert not (await answered(gateway)).cached
    async with open_gateway(redis_url, peers, cache={"similarity": 1.01}) as gateway:
        await answered(gateway)
        assert (await answered(gateway)).cached
        assert not (await answered(gateway, "Please tell me how long is leave?")).cached
