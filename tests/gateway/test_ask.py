"""Ask and AskOnce over real channels, from the caller to the engine."""

import asyncio
import time

import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from meshkit.errors import FieldViolation, Unavailable, invalid
from meshkit.identity import Identity
from meshkit.status import from_rpc_error
from ragmesh.gateway.v1 import answers_pb2, events_pb2, sessions_pb2
from ragmesh.generator.v1 import generator_pb2
from tests.gateway.calling import ask, heard, info_of, once, reason, status_of
from tests.gateway.conftest import ALICE, Gateway, free_port, open_gateway
from tests.gateway.peer_doubles import TINY, Peers, Script

DIED = Unavailable("ENGINE_UNAVAILABLE", "the engine died", metadata={"model": "tiny"})


async def test_answer_comes_as_numbered_events(gateway: Gateway) -> None:
    """The events are those of the contract, in order, without gaps, and the last one is the whole answer."""
    events = await heard(gateway.answers.Ask(ask()))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "started"
    assert kinds[-5:] == ["citation", "usage", "grounding", "stage", "final"]
    assert [event.HasField("elapsed") for event in events] == [kind != "token" for kind in kinds]
    final = events[-1].final
    assert final.text == "Employees get 25 days of leave. [1]"
    assert final.text == "".join(event.token.text for event in events)
    assert list(final.citations) == [event.citation for event in events if event.HasField("citation")]
    assert final.finish_reason == events_pb2.FINISH_REASON_STOP
    assert final.usage.completion_tokens == 4


async def test_citation_finds_its_source(gateway: Gateway) -> None:
    """The citation's spans are the claim in the answer and the words in the document."""
    final = (await heard(gateway.answers.Ask(ask())))[-1].final
    (cited,) = final.citations
    assert final.text.encode()[cited.answer.start : cited.answer.end] == b"Employees get 25 days of leave."
    assert (cited.source.start, cited.source.end) == (0, 31)
    assert cited.verbatim
    assert (cited.title, cited.uri, cited.page) == ("Leave", "https://example.com/leave", 1)


async def test_hits_arrive_with_all_that_the_retriever_said(gateway: Gateway) -> None:
    """A chunk in the event is the chunk that the retriever sent."""
    events = await heard(gateway.answers.Ask(ask()))
    (retrieved,) = [event.retrieved for event in events if event.HasField("retrieved")]
    chunk = retrieved.hits[0].chunk
    assert retrieved.query == "How long is leave?"
    assert list(chunk.heading_path) == ["Handbook", "Leave"]
    assert chunk.metadata["lang"] == "en"


async def test_once_is_the_final_event(gateway: Gateway) -> None:
    """AskOnce answers what Ask's last event says."""
    final = (await heard(gateway.answers.Ask(ask())))[-1].final
    answer = (await gateway.answers.AskOnce(once())).answer
    assert (answer.text, answer.citations, answer.usage) == (final.text, final.citations, final.usage)


async def test_answer_can_be_read_again(gateway: Gateway) -> None:
    """GetAnswer gives the answer as the final event had it."""
    final = (await heard(gateway.answers.Ask(ask())))[-1].final
    read = await gateway.answers.GetAnswer(answers_pb2.GetAnswerRequest(name=final.name))
    assert read.answer == final


async def test_tokens_are_relayed_one_by_one(gateway: Gateway) -> None:
    """A token reaches the caller before the engine makes the next one."""
    turns = asyncio.Semaphore(1)
    gateway.peers.generator.script = Script(tokens=["a ", "b ", "c ", "d "], turns=turns)
    came: list[str] = []
    async with asyncio.timeout(10):
        async for response in gateway.answers.Ask(ask()):
            if response.event.HasField("token"):
                came.append(response.event.token.text)
                turns.release()
    assert came == ["a ", "b ", "c ", "d "]


async def test_identity_and_options_reach_the_peers(gateway: Gateway) -> None:
    """The retriever sees the asker; the generator sees the sampling that was asked for."""
    request = ask(generation={"sampling": {"temperature": 0.0, "seed": 7}, "stop": ["END"], "max_tokens": 9})
    await heard(gateway.answers.Ask(request))
    assert gateway.peers.retriever.callers == [ALICE]
    (sent,) = gateway.peers.generator.requests
    assert (sent.sampling.HasField("temperature"), sent.sampling.seed) == (True, 7)
    assert not sent.sampling.HasField("top_p")
    assert (list(sent.stop), sent.max_tokens) == (["END"], 9)
    assert [passage.number for passage in sent.grounded.passages] == [1, 2]


async def test_language_model_gets_a_chat(gateway: Gateway) -> None:
    """A model of the kind LANGUAGE_MODEL gets messages, which it counts itself."""
    gateway.peers.generator.models = [TINY]
    structured = generator_pb2.StructuredOutput(json_schema="{}")
    await heard(gateway.answers.Ask(ask(generation={"structured_output": structured})))
    (sent,) = gateway.peers.generator.requests
    assert [said.role for said in sent.chat.messages] == [generator_pb2.ROLE_SYSTEM, generator_pb2.ROLE_USER]
    assert sent.structured_output == structured
    assert gateway.peers.generator.counted == 0


async def test_prompt_too_long_is_made_to_fit(gateway: Gateway) -> None:
    """What the model refuses comes again with less, and the caller is told how much less."""
    gateway.peers.generator.models = [TINY]
    gateway.peers.retriever.texts["collections/handbook"] = [f"leave{place} " * 60 for place in range(6)]
    events = await heard(gateway.answers.Ask(ask()))
    refused, taken = gateway.peers.generator.requests
    assert len(taken.SerializeToString()) < len(refused.SerializeToString())
    stages = [event.stage for event in events if event.stage.stage == "prompt"]
    prompted = [MessageToDict(stage.detail) for stage in stages if stage.HasField("detail")]
    assert [detail.get("dropped_passages", 0) + detail["passages"] for detail in prompted] == [6, 6]
    assert prompted[1]["dropped_passages"] > 0
    assert events[-1].HasField("final")


async def test_deadline_reaches_the_engine(gateway: Gateway) -> None:
    """The engine has what is left of the caller's deadline, less a margin."""
    await heard(gateway.answers.Ask(ask(), timeout=2))
    (remaining_s,) = gateway.peers.generator.remaining_s
    assert 0.5 < remaining_s < 1.75


async def test_deadline_ends_the_answer_and_frees_the_engine(gateway: Gateway) -> None:
    """An answer that takes longer than allowed ends before its deadline with what was said, and holds nothing."""
    gateway.peers.generator.script = Script(tokens=["a "], hang=True)
    final = (await heard(gateway.answers.Ask(ask(), timeout=1)))[-1].final
    assert (final.text, final.finish_reason) == ("a ", events_pb2.FINISH_REASON_LENGTH)
    assert [(left.stage, left.reason) for left in final.degradations] == [("generate", "DEADLINE_EXCEEDED")]
    async with asyncio.timeout(1):
        await gateway.peers.generator.freed.event.wait()


async def test_caller_who_leaves_frees_the_engine(gateway: Gateway) -> None:
    """Leaving cancels the engine's stream within 100 ms, and the session has what was said, as interrupted."""
    gateway.peers.generator.script = Script(tokens=["25 ", "days "], hang=True)
    call = gateway.answers.Ask(ask(session="sessions/s1"))
    async for response in call:
        if response.event.token.text == "days ":
            break
    left_s = time.monotonic()
    call.cancel()
    freed = gateway.peers.generator.freed
    async with asyncio.timeout(2):
        await freed.event.wait()
    print(f"engine free after {(freed.at_s - left_s) * 1000:.1f} ms")
    assert freed.at_s - left_s < 0.1
    turn = (await _saved(gateway)).turns[0]
    assert (turn.text, turn.finish_reason) == ("25 days ", events_pb2.FINISH_REASON_INTERRUPTED)


async def test_caller_of_once_who_leaves_frees_the_engine(gateway: Gateway) -> None:
    """The unary twin is cancelled all the way down too, and its turn is kept."""
    gateway.peers.generator.script = Script(tokens=["25 "], hang=True)
    call = gateway.answers.AskOnce(once(session="sessions/s1"))
    async with asyncio.timeout(5):
        while not gateway.peers.generator.requests:
            await asyncio.sleep(0.005)
    call.cancel()
    async with asyncio.timeout(1):
        await gateway.peers.generator.freed.event.wait()
    assert (await _saved(gateway)).turns[0].finish_reason == events_pb2.FINISH_REASON_INTERRUPTED


async def _saved(gateway: Gateway) -> sessions_pb2.Session:
    """The caller's one session, once it is there."""
    async with asyncio.timeout(5):
        while not (listed := await gateway.sessions.ListSessions(sessions_pb2.ListSessionsRequest())).sessions:
            await asyncio.sleep(0.01)
    request = sessions_pb2.GetSessionRequest(name=listed.sessions[0].name)
    return (await gateway.sessions.GetSession(request)).session


async def test_error_in_mid_answer_is_an_event_then_the_status(gateway: Gateway) -> None:
    """The error event carries the same status, details and all, with which the call then ends."""
    gateway.peers.generator.script = Script(tokens=["25 ", "days"], error=DIED)
    events: list[events_pb2.AnswerEvent] = []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for response in gateway.answers.Ask(ask()):
            events.append(response.event)
    assert [event.WhichOneof("event") for event in events][-3:] == ["token", "token", "error"]
    assert status_of(raised.value) == events[-1].error
    assert info_of(events[-1].error).metadata["model"] == "tiny"


async def test_failed_answer_can_be_read(gateway: Gateway) -> None:
    """An answer that broke is kept as FAILED, with its error and what was said."""
    gateway.peers.generator.script = Script(tokens=["25 "], error=DIED)
    name = ""
    with pytest.raises(grpc.aio.AioRpcError):
        async for response in gateway.answers.Ask(ask()):
            name = response.event.started.answer or name
    answer = (await gateway.answers.GetAnswer(answers_pb2.GetAnswerRequest(name=name))).answer
    assert (answer.text, answer.finish_reason) == ("25 ", events_pb2.FINISH_REASON_FAILED)
    assert (answer.error.code, info_of(answer.error).reason) == (14, "ENGINE_UNAVAILABLE")


async def test_empty_collection_abstains(gateway: Gateway) -> None:
    """Nothing found is an abstention, not an error and not prose."""
    request = once(collection="collections/empty")
    answer = (await gateway.answers.AskOnce(request)).answer
    assert answer.finish_reason == events_pb2.FINISH_REASON_ABSTAINED
    assert answer.abstention == events_pb2.ABSTENTION_REASON_NO_RELEVANT_CHUNKS
    assert (answer.text, len(answer.citations)) == ("", 0)


async def test_silence_has_heartbeats(redis_url: str, peers: Peers) -> None:
    """While the engine is silent the stream is not."""
    peers.generator.script = Script(tokens=["25 "], hang=True)
    async with open_gateway(redis_url, peers, heartbeat_s=0.02) as gateway:
        call = gateway.answers.Ask(ask())
        async for response in call:
            if response.event.HasField("heartbeat"):
                break
        call.cancel()
    assert response.event.HasField("heartbeat")


BAD = [
    (ask(question=""), "INVALID_ARGUMENT", "INVALID_FIELD"),
    (ask(question="x" * 32769), "INVALID_ARGUMENT", "INVALID_FIELD"),
    (ask(collection="handbook"), "INVALID_ARGUMENT", "INVALID_FIELD"),
    (ask(collection="collections/Nowhere"), "INVALID_ARGUMENT", "INVALID_FIELD"),
    (ask(collection="collections/nowhere"), "NOT_FOUND", "COLLECTION_NOT_FOUND"),
    (ask(session="s1"), "INVALID_ARGUMENT", "INVALID_FIELD"),
    (ask(session="sessions/../x"), "INVALID_ARGUMENT", "INVALID_FIELD"),
    (ask(model="gpt-9"), "NOT_FOUND", "MODEL_NOT_FOUND"),
    (ask(retrieval={"mode": 9}), "INVALID_ARGUMENT", "INVALID_FIELD"),
    (ask(retrieval={"top_k": 101}), "INVALID_ARGUMENT", "INVALID_FIELD"),
    (ask(cache=9), "INVALID_ARGUMENT", "INVALID_FIELD"),
    (ask(generation={"sampling": {"temperature": -1}}), "INVALID_ARGUMENT", "INVALID_FIELD"),
    (ask(generation={"structured_output": {}}), "INVALID_ARGUMENT", "INVALID_FIELD"),
    (ask(generation={"structured_output": {"regex": "x"}}), "INVALID_ARGUMENT", "UNSUPPORTED_BY_ENGINE"),
    (ask(tools=[{"tool": "a b"}]), "INVALID_ARGUMENT", "INVALID_FIELD"),
]


@pytest.mark.parametrize(("request_", "code", "why"), BAD)
async def test_bad_question_is_refused_plainly(
    gateway: Gateway, request_: answers_pb2.AskRequest, code: str, why: str
) -> None:
    """A question that cannot be answered fails with its reason and without a single event, streamed or not."""
    streamed: list[events_pb2.AnswerEvent] = []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for response in gateway.answers.Ask(request_):
            streamed.append(response.event)
    assert streamed == []
    assert (raised.value.code().name, reason(raised.value)) == (code, why)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.answers.AskOnce(answers_pb2.AskOnceRequest(ask=request_))
    assert (raised.value.code().name, reason(raised.value)) == (code, why)


async def test_bad_filter_is_named_as_the_question_has_it(gateway: Gateway) -> None:
    """The search's fields are no business of the caller's."""
    gateway.peers.retriever.error = invalid("filter", "stops too soon", reason="INVALID_FILTER")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await heard(gateway.answers.Ask(ask(retrieval={"filter": "page >"})))
    error = from_rpc_error(raised.value)
    assert (error.reason, error.metadata["field"]) == ("INVALID_FILTER", "retrieval.filter")
    assert error.violations == (FieldViolation("retrieval.filter", "stops too soon"),)


async def test_caller_needs_the_scope(gateway: Gateway) -> None:
    """Without `ask` nothing is answered; without identity nobody is known."""
    async with gateway.acting(Identity("acme", "bob", frozenset({"search"}))) as other:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await heard(other.answers.Ask(ask()))
    assert reason(raised.value) == "SCOPE_MISSING"
    async with gateway.acting(None) as other:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await heard(other.answers.Ask(ask()))
    assert reason(raised.value) == "IDENTITY_MISSING"


async def test_same_request_id_generates_once(gateway: Gateway) -> None:
    """Asked again under the same id, the same answer comes without the engine."""
    first = (await heard(gateway.answers.Ask(ask(request_id="r1"))))[-1].final
    again = (await heard(gateway.answers.Ask(ask(request_id="r1"))))[-1].final
    assert again == first
    assert len(gateway.peers.generator.requests) == 1


@pytest.mark.parametrize("peer", ["retriever", "generator"])
async def test_peer_that_is_away_is_named(redis_url: str, peers: Peers, peer: str) -> None:
    """A peer that does not answer gives PEER_UNAVAILABLE with its name, soon, and no event."""
    away = {f"{peer}_target": f"127.0.0.1:{free_port()}"}
    async with open_gateway(redis_url, peers, **away) as gateway:
        began = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await heard(gateway.answers.Ask(ask()))
    assert time.monotonic() - began < 5
    assert reason(raised.value) == "PEER_UNAVAILABLE"
    assert info_of(status_of(raised.value)).metadata["peer"] == peer


async def test_answer_is_given_while_redis_is_away(peers: Peers) -> None:
    """Without Redis a new question is answered and says so; one to a named session is not."""
    async with open_gateway(f"redis://127.0.0.1:{free_port()}/0", peers) as gateway:
        final = (await heard(gateway.answers.Ask(ask())))[-1].final
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await heard(gateway.answers.Ask(ask(session="sessions/s1")))
    assert final.text
    assert [(left.stage, left.reason) for left in final.degradations] == [("session", "STORE_UNAVAILABLE")]
    assert (raised.value.code().name, reason(raised.value)) == ("UNAVAILABLE", "STORE_UNAVAILABLE")
