"""Follow-ups of a conversation over real channels: what rules and a model make of them is raced."""

import json

from ragmesh.gateway.v1 import events_pb2
from tests.gateway.calling import ask, heard, once
from tests.gateway.conftest import Gateway
from tests.gateway.peer_doubles import TINY

ALONE = "How long is leave in Germany?"


def _queries(gateway: Gateway) -> list[str]:
    return [request.query for request in gateway.peers.retriever.requests]


async def test_follow_up_is_searched_for_as_the_model_rewrote_it(gateway: Gateway) -> None:
    """The quick search, which the slow index has under way, is given up; the answer rests on the rewritten question."""
    gateway.peers.generator.models = [TINY]
    await gateway.answers.AskOnce(once("How long is leave?", session="sessions/s1"))
    gateway.peers.generator.forms = [json.dumps({"question": ALONE, "parts": []})]
    gateway.peers.retriever.delay_s = 0.2
    events = await heard(gateway.answers.Ask(ask("And in Germany?", session="sessions/s1")))
    assert _queries(gateway)[1:] == ["How long is leave And in Germany?", ALONE]
    assert [event.retrieved.query for event in events if event.HasField("retrieved")] == [ALONE]
    assert events[-1].final.finish_reason == events_pb2.FINISH_REASON_STOP
    assert not events[-1].final.degradations


async def test_follow_up_without_a_language_model_is_joined(gateway: Gateway) -> None:
    """It is searched for, and quoted for, with the words of the question before it."""
    await gateway.answers.AskOnce(once("How long is leave?", session="sessions/s1"))
    await heard(gateway.answers.Ask(ask("And in Germany?", session="sessions/s1")))
    joined = "How long is leave And in Germany?"
    assert _queries(gateway)[1:] == [joined]
    assert gateway.peers.generator.requests[-1].grounded.question == joined


async def test_greeting_calls_nobody(gateway: Gateway) -> None:
    """Neither the index nor the engine hears of it."""
    events = await heard(gateway.answers.Ask(ask("你好")))
    assert events[-1].final.text.startswith("你好")
    assert _queries(gateway) == gateway.peers.generator.requests == []
