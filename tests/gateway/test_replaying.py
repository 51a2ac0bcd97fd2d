"""How answers came about, and the same questions asked again in other ways."""

import json

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict

from ragmesh.gateway.v1 import answers_pb2, events_pb2, sessions_pb2
from ragmesh.generator.v1 import generator_pb2
from tests.gateway.calling import ask, heard, once
from tests.gateway.conftest import Gateway, open_gateway
from tests.gateway.peer_doubles import EXTRACTIVE, TINY, Peers, Script

PLAIN = answers_pb2.PlanOptions(rewrite=False, decompose=False)


async def _explain(gateway: Gateway, name: str) -> answers_pb2.ExplainAnswerResponse:
    return await gateway.answers.ExplainAnswer(answers_pb2.ExplainAnswerRequest(name=name))


async def test_answer_is_explained(redis_url: str, peers: Peers) -> None:
    """Its plan, what was found, the prompt and all events but the tokens; on any replica."""
    async with open_gateway(redis_url, peers) as gateway:
        events = await heard(gateway.answers.Ask(ask()))
        final = events[-1].final
        here = await _explain(gateway, final.name)
    async with open_gateway(redis_url, peers) as other:
        there = await _explain(other, final.name)
    assert here == there
    assert here.answer == final
    assert list(here.events) == [event for event in events if not event.HasField("token")]
    assert list(here.retrieved) == [event.retrieved for event in events if event.HasField("retrieved")]
    assert MessageToDict(here.plan)["action"] == "retrieve"
    prompt = json.loads(here.prompt)
    assert [passage["text"] for passage in prompt["passages"]] == peers.retriever.texts["collections/handbook"]


async def test_prompt_is_the_one_that_the_engine_got(gateway: Gateway) -> None:
    """A chat is explained with its messages as they were sent."""
    gateway.peers.generator.models = [TINY]
    answer = (await gateway.answers.AskOnce(once(plan=PLAIN))).answer
    sent = gateway.peers.generator.requests[-1].chat
    messages = json.loads((await _explain(gateway, answer.name)).prompt)["messages"]
    assert [message["content"] for message in messages] == [message.content for message in sent.messages]


async def test_answer_under_way_is_explained_so_far(gateway: Gateway) -> None:
    """What has happened is there, and the answer as if it were interrupted now."""
    gateway.peers.generator.script = Script(tokens=["25 days. ", "Or so."], hang=True)
    call = aiter(gateway.answers.Ask(ask()))
    name = (await anext(call)).event.started.answer
    async for response in call:
        if response.event.HasField("token"):
            break
    explained = await _explain(gateway, name)
    assert explained.answer.finish_reason == events_pb2.FINISH_REASON_INTERRUPTED
    assert explained.answer.text.startswith("25 days.")
    assert explained.retrieved


async def test_question_is_asked_again_as_it_was(redis_url: str, peers: Peers) -> None:
    """On any replica: its own answer, with the options of the first one, no turn, and never from a cache."""
    asked = ask(session="sessions/s1", retrieval={"top_k": 1}, generation={"max_tokens": 9, "stop": ["END"]})
    async with open_gateway(redis_url, peers) as gateway:
        first = (await heard(gateway.answers.Ask(asked)))[-1].final
    async with open_gateway(redis_url, peers) as other:
        request = answers_pb2.ReplayAnswerRequest(name=first.name)
        again = (await heard(other.answers.ReplayAnswer(request)))[-1].final
        session = await other.sessions.GetSession(sessions_pb2.GetSessionRequest(name="sessions/s1"))
    assert (again.text, again.question) == (first.text, first.question)
    assert again.name != first.name
    assert (again.session, len(session.session.turns)) == ("", 1)
    assert [request.top_k for request in peers.retriever.requests] == [1, 1]
    before, replayed = peers.generator.requests
    assert (before.max_tokens, before.stop, before.grounded) == (replayed.max_tokens, replayed.stop, replayed.grounded)


async def test_replay_takes_other_options(gateway: Gateway) -> None:
    """Model, search and writing are replaced where they are given, each as a whole."""
    gateway.peers.generator.models = [EXTRACTIVE, TINY]
    first = (await gateway.answers.AskOnce(once(retrieval={"top_k": 1}, generation={"max_tokens": 9}))).answer
    request = answers_pb2.ReplayAnswerRequest(
        name=first.name,
        model="tiny",
        retrieval=answers_pb2.RetrievalOptions(top_k=2),
        generation=answers_pb2.GenerationOptions(sampling=generator_pb2.Sampling(temperature=0.0)),
        plan=PLAIN,
    )
    again = (await heard(gateway.answers.ReplayAnswer(request)))[-1].final
    assert again.model == "tiny"
    assert [search.top_k for search in gateway.peers.retriever.requests] == [1, 2]
    sent = gateway.peers.generator.requests[-1]
    assert (sent.WhichOneof("input"), sent.sampling) == ("chat", generator_pb2.Sampling(temperature=0.0))


async def test_replay_has_its_conversation_and_its_time(gateway: Gateway) -> None:
    """A later question of a session is asked again with the turns before it; a short time is kept."""
    gateway.peers.generator.models = [TINY]
    await gateway.answers.AskOnce(once("First?", session="sessions/s1", plan=PLAIN))
    answer = (await gateway.answers.AskOnce(once("Second?", session="sessions/s1", plan=PLAIN))).answer
    request = answers_pb2.ReplayAnswerRequest(name=answer.name, timeout=Duration(seconds=2))
    await heard(gateway.answers.ReplayAnswer(request))
    sent = gateway.peers.generator.requests[-1]
    assert "First?" in [message.content for message in sent.chat.messages]
    assert gateway.peers.generator.remaining_s[-1] < 2
