"""Nothing of one tenant, or of a caller with other scopes, reaches another: random histories over one gateway."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshkit.identity import Identity, current
from ragmesh.gateway.v1 import answers_pb2, events_pb2, feedback_pb2, sessions_pb2
from ragmesh.generator.v1 import generator_pb2
from tests.gateway.calling import ask, heard, reason
from tests.gateway.conftest import Gateway, open_gateway
from tests.gateway.peer_doubles import Generator, Peers, Script

TENANTS = ("acme", "bolt")
COLLECTIONS = ("collections/handbook", "collections/plans")
SCOPES = (frozenset({"ask"}), frozenset({"ask", "search"}))
CALLERS = [Identity(tenant, subject, scopes) for tenant in TENANTS for subject in ("ann", "ben") for scopes in SCOPES]
QUESTIONS = ("How long is leave?", "how long is  leave", "Please tell me how long is the leave?", "Who pays?")
Owner = tuple[str, str]


class Secrets(dict[str, list[str]]):
    """The text of each collection, another for each tenant and version."""

    def __init__(self, versions: dict[tuple[str, str], int]) -> None:
        super().__init__()
        self.versions = versions

    def __contains__(self, collection: object) -> bool:
        return collection in COLLECTIONS

    def __getitem__(self, collection: str) -> list[str]:
        return [secret(current().tenant, collection, self.versions[current().tenant, collection])]


class Echo(Script):
    """Says the passage that it was given."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self._generator = generator

    def __getattribute__(self, name: str) -> Any:
        if name == "tokens":
            return [self._generator.requests[-1].grounded.passages[0].text, " [1]"]
        return super().__getattribute__(name)


def secret(tenant: str, collection: str, version: int) -> str:
    """What only the tenant's callers may read, and only while the collection has that version."""
    return f"Secret of {tenant} in {collection.removeprefix('collections/')} number {version}."


@dataclass
class History:
    """What has happened so far, and what must be so: asserts as it goes."""

    gateways: Sequence[Gateway]
    versions: dict[tuple[str, str], int]
    answers: list[tuple[Owner, events_pb2.Answer]] = field(default_factory=list)
    sessions: list[tuple[Owner, str]] = field(default_factory=list)

    async def ask(self, who: int, collection: str, question: str, of_session: int, request_id: str) -> None:
        """Ask, on a session that may be another's, under a request id that may be in use."""
        caller = CALLERS[who]
        session = self.sessions[of_session % len(self.sessions)][1] if of_session and self.sessions else ""
        request = ask(question, collection=collection, session=session, request_id=request_id)
        try:
            events = await heard(self.gateways[who].answers.Ask(request))
        except grpc.aio.AioRpcError as error:
            assert reason(error) == "REQUEST_ID_REUSED"  # noqa: PT017 - any other reason is a failure
            return
        self._check(caller, collection, events, again=bool(request_id))
        self._note(caller, events[-1].final)

    async def all_ask(self, collection: str, question: str) -> None:
        """Every caller asks the same at the same moment."""
        await asyncio.gather(*(self.ask(who, collection, question, 0, "") for who in range(len(CALLERS))))

    async def change(self, who: int, collection: str) -> None:
        """The caller's tenant writes to its collection."""
        self.versions[CALLERS[who].tenant, collection] += 1

    async def look(self, who: int, which: int) -> None:
        """Read, resume, explain and rate an answer, and read and delete its session, as its owner or another."""
        if not self.answers:
            return
        owner, answer = self.answers[which % len(self.answers)]
        gateway, own = self.gateways[who], owner == _owner(CALLERS[who])
        name = answer.name
        rating = feedback_pb2.Feedback(rating=feedback_pb2.Feedback.RATING_UP)
        calls: list[Any] = [
            lambda: gateway.answers.GetAnswer(answers_pb2.GetAnswerRequest(name=name)),
            lambda: gateway.feedback.CreateFeedback(feedback_pb2.CreateFeedbackRequest(parent=name, feedback=rating)),
            lambda: heard(gateway.answers.ResumeAnswer(answers_pb2.ResumeAnswerRequest(name=name))),
            lambda: gateway.answers.ExplainAnswer(answers_pb2.ExplainAnswerRequest(name=name)),
            lambda: heard(gateway.answers.ReplayAnswer(answers_pb2.ReplayAnswerRequest(name=name))),
        ]
        for call in calls if not own else calls[:2]:
            assert await _found(call) is own
        if (_owner(CALLERS[who]), answer.session) not in self.sessions:
            assert not await _found(lambda: gateway.sessions.GetSession(_session(answer)))
            assert not await _found(
                lambda: gateway.sessions.DeleteSession(sessions_pb2.DeleteSessionRequest(name=answer.session))
            )

    async def list(self, who: int) -> None:
        """The caller's own sessions, with nothing of another tenant's."""
        caller = CALLERS[who]
        response = await self.gateways[who].sessions.ListSessions(sessions_pb2.ListSessionsRequest(page_size=100))
        listed = {session.name for session in response.sessions}
        assert listed <= {name for owner, name in self.sessions if owner == _owner(caller)}

    def _check(
        self, caller: Identity, collection: str, events: Sequence[events_pb2.AnswerEvent], *, again: bool
    ) -> None:
        final = events[-1].final
        now = secret(caller.tenant, collection, self.versions[caller.tenant, collection])
        if again:
            # The same answer as before, of whatever version it was.
            assert final.text.startswith(f"Secret of {caller.tenant} in {collection.removeprefix('collections/')} ")
        else:
            assert final.text == f"{now} [1]"
            assert {hit.chunk.text for event in events for hit in event.retrieved.hits} == {now}
            assert {citation.quote for citation in final.citations} <= {now, ""}
        # Nobody's question but the caller's own is told, whoever asked first.
        assert {event.retrieved.query for event in events if event.HasField("retrieved")} == {final.question}

    def _note(self, caller: Identity, answer: events_pb2.Answer) -> None:
        self.answers.append((_owner(caller), answer))
        self.sessions.append((_owner(caller), answer.session))


def _owner(caller: Identity) -> Owner:
    return (caller.tenant, caller.subject)


def _session(answer: events_pb2.Answer) -> sessions_pb2.GetSessionRequest:
    return sessions_pb2.GetSessionRequest(name=answer.session)


async def _found(call: Any) -> bool:
    try:
        await call()
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.NOT_FOUND  # noqa: PT017 - any other is a failure
        return False
    return True


@pytest.fixture
async def gateways(redis_url: str, peers: Peers) -> AsyncIterator[Sequence[Gateway]]:
    """Two replicas, each called by every second caller."""
    peers.retriever.versions = {(tenant, collection): 1 for tenant in TENANTS for collection in COLLECTIONS}
    peers.retriever.texts = Secrets(peers.retriever.versions)
    peers.generator.script = Echo(peers.generator)
    peers.generator.script.finish = generator_pb2.FINISH_REASON_STOP
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(open_gateway(redis_url, peers)) for _ in range(2)]
        acting = [replicas[place // 2 % 2].acting(caller) for place, caller in enumerate(CALLERS)]
        yield [await stack.enter_async_context(each) for each in acting]


_CALLER = st.integers(0, len(CALLERS) - 1)
_COLLECTION = st.sampled_from(COLLECTIONS)
_QUESTION = st.sampled_from(QUESTIONS)
_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), _CALLER, _COLLECTION, _QUESTION, st.integers(0, 3), st.sampled_from(("", "", "r1"))),
        st.tuples(st.just("ask"), _CALLER, _COLLECTION, _QUESTION, st.just(0), st.just("")),
        st.tuples(st.just("all_ask"), _COLLECTION, _QUESTION),
        st.tuples(st.just("change"), _CALLER, _COLLECTION),
        st.tuples(st.just("look"), _CALLER, st.integers(0, 50)),
        st.tuples(st.just("list"), _CALLER),
    ),
    min_size=4,
    max_size=16,
)


async def test_nothing_crosses(gateways: Sequence[Gateway], peers: Peers) -> None:
    """One history after another over what the ones before have left: caches, sessions, answers, feedback, journals."""
    history = History(gateways, peers.retriever.versions)
    loop = asyncio.get_running_loop()

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(_ACTIONS)
    def run(actions: Sequence[tuple[Any, ...]]) -> None:
        asyncio.run_coroutine_threadsafe(play(actions), loop).result(20)

    async def play(actions: Sequence[tuple[Any, ...]]) -> None:
        for name, *arguments in actions:
            await getattr(history, name)(*arguments)

    await asyncio.to_thread(run)
    for _ in range(2):
        await history.all_ask(COLLECTIONS[0], QUESTIONS[0])
    assert any(answer.cached for _, answer in history.answers)
