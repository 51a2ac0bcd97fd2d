"""What people think of answers, kept in a real Redis."""

import asyncio
from datetime import timedelta

import grpc
import pytest

from meshkit.identity import Identity
from ragmesh.gateway.v1 import events_pb2, feedback_pb2
from tests.gateway.calling import once, reason
from tests.gateway.conftest import Gateway, open_gateway
from tests.gateway.peer_doubles import Peers

ADMIN = Identity("acme", "carol", frozenset({"ask", "admin"}))
OTHER_ADMIN = Identity("globex", "alice", frozenset({"ask", "admin"}))
UP, DOWN = feedback_pb2.Feedback.RATING_UP, feedback_pb2.Feedback.RATING_DOWN


async def _answer(gateway: Gateway) -> events_pb2.Answer:
    return (await gateway.answers.AskOnce(once())).answer


async def _give(
    gateway: Gateway, answer: events_pb2.Answer, comment: str, rating: feedback_pb2.Feedback.Rating.ValueType = UP
) -> feedback_pb2.Feedback:
    given = feedback_pb2.Feedback(rating=rating, comment=comment, corrected_citations=answer.citations)
    request = feedback_pb2.CreateFeedbackRequest(parent=answer.name, feedback=given)
    return (await gateway.feedback.CreateFeedback(request)).feedback


async def _exported(gateway: Gateway, since: feedback_pb2.Feedback | None = None) -> list[feedback_pb2.Feedback]:
    request = feedback_pb2.ExportFeedbackRequest(since=since.create_time if since else None)
    return [response.feedback async for response in gateway.feedback.ExportFeedback(request)]


async def test_feedback_is_listed_newest_first(gateway: Gateway) -> None:
    """Feedback has the answer's question and text, and comes page by page."""
    answer = await _answer(gateway)
    made = [await _give(gateway, answer, comment) for comment in ("first", "second", "third")]
    async with gateway.acting(ADMIN) as admin:
        first = await admin.feedback.ListFeedback(feedback_pb2.ListFeedbackRequest(page_size=2))
        behind = feedback_pb2.ListFeedbackRequest(page_size=2, page_token=first.next_page_token)
        second = await admin.feedback.ListFeedback(behind)
    assert [*first.feedback, *second.feedback] == made[::-1]
    assert {(each.question, each.text, str(each.corrected_citations)) for each in made} == {
        (answer.question, answer.text, str(answer.citations))
    }
    assert made[0].name.startswith(f"{answer.name}/feedback/")


async def test_all_of_it_is_exported_oldest_first(gateway: Gateway) -> None:
    """More than is read from Redis at a time comes without gaps or repetitions, as it was recorded."""
    answer = await _answer(gateway)
    made = [await _give(gateway, answer, str(number), (UP, DOWN)[number % 2]) for number in range(230)]
    async with gateway.acting(ADMIN) as admin:
        exported = await _exported(admin)
    assert exported == made


async def test_export_begins_at_a_time(gateway: Gateway) -> None:
    """What was given before is left out, what was given at the time or later is not; a time to come leaves nothing."""
    answer = await _answer(gateway)
    made = []
    for comment in ("old", "new", "newest"):
        made.append(await _give(gateway, answer, comment))
        await asyncio.sleep(0.005)  # entries of one millisecond are not told apart
    async with gateway.acting(ADMIN) as admin:
        assert [each.comment for each in await _exported(admin, made[1])] == ["new", "newest"]
        later = feedback_pb2.Feedback()
        later.create_time.FromDatetime(made[2].create_time.ToDatetime() + timedelta(days=1))
        assert not await _exported(admin, later)


async def test_feedback_of_one_tenant_reaches_no_other(gateway: Gateway) -> None:
    """Neither the list nor the export of another tenant's administrator has it."""
    await _give(gateway, await _answer(gateway), "ours")
    async with gateway.acting(OTHER_ADMIN) as other:
        assert not (await other.feedback.ListFeedback(feedback_pb2.ListFeedbackRequest())).feedback
        assert not await _exported(other)
        await _give(other, await _answer(other), "theirs")
        assert [each.comment for each in await _exported(other)] == ["theirs"]
    async with gateway.acting(ADMIN) as admin:
        assert [each.comment for each in await _exported(admin)] == ["ours"]


async def test_feedback_is_read_by_administrators_only(gateway: Gateway) -> None:
    """Who may only ask neither lists nor exports it."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.feedback.ListFeedback(feedback_pb2.ListFeedbackRequest())
    assert reason(raised.value) == "SCOPE_MISSING"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await _exported(gateway)
    assert reason(raised.value) == "SCOPE_MISSING"


async def test_feedback_is_bounded(redis_url: str, peers: Peers) -> None:
    """Of a tenant's feedback the last is kept; Redis trims it, by whole entries."""
    async with open_gateway(redis_url, peers, max_feedback=3) as gateway:
        answer = await _answer(gateway)
        made = [await _give(gateway, answer, str(number)) for number in range(300)]
        async with gateway.acting(ADMIN) as admin:
            exported = await _exported(admin)
    assert exported == made[-len(exported) :]
    assert 3 <= len(exported) < 300
