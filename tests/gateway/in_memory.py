"""The domain's peers and stores, in memory."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

from gateway.answering import Answering
from gateway.answers import Answer, Question
from gateway.course import Course, Limits, Ports
from gateway.events import Event, Stage, StageState
from gateway.generation import Chat, Delta, Ending, Generation, Model, Usage
from gateway.journal import Part
from gateway.models import Models
from gateway.retrieval import Chunk, Found, Hit, Search, Span
from gateway.sessions import Page, Session, Summary, Turn
from gateway.summarising import Summaries
from meshkit.errors import InvalidArgument, MeshError, Unavailable
from meshkit.identity import Identity

ALICE = Identity("acme", "alice", frozenset({"ask"}))
EXTRACTIVE = Model("extractive", extractive=True)
TINY = Model("tiny", extractive=False, max_model_tokens=400, structured_output=True)
QUESTION = Question("How long is leave?", "collections/handbook")


def hit(ordinal: int, text: str) -> Hit:
    """A hit whose chunk has the text."""
    span = Span(100, 100 + len(text.encode()))
    return Hit(Chunk(f"chunks/{ordinal}", "documents/d", text, span, ordinal), 1 / (ordinal + 1))


HITS = (hit(0, "Employees get 25 days of leave."), hit(1, "Ask in the portal."))


@dataclass
class MemoryRetriever:
    """Finds what it is given, for some queries something else; one of these that is None takes for ever."""

    found: Found = field(default_factory=lambda: Found(HITS))
    error: MeshError | None = None
    searches: list[Search] = field(default_factory=list)
    special: dict[str, Found | None] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)

    async def search(self, search: Search) -> Found:
        self.searches.append(search)
        if self.error:
            raise self.error
        found = self.special.get(search.query, self.found)
        if found is None:
            await self._wait_for_ever(search.query)
        return cast("Found", found)

    async def _wait_for_ever(self, query: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.append(query)


@dataclass
class MemoryGenerator:
    """Says what it is given; a None among the deltas waits for ever.

    `advice` is what it says to instructions that hold some words, instead; it stands in no list of generations.
    """

    models: list[Model] = field(default_factory=lambda: [EXTRACTIVE, TINY])
    deltas: Sequence[Delta | MeshError | None] = (
        Delta("25 days of leave. ", 4),
        Delta("[1]", 3),
        Delta(ending=Ending.STOP, usage=Usage(30, 10, 7)),
    )
    generations: list[Generation] = field(default_factory=list)
    advice: dict[str, str | MeshError | None] = field(default_factory=dict)
    advised: list[Generation] = field(default_factory=list)
    asked_for_models: int = 0
    counted: int = 0
    freed: bool = False

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncIterator[AsyncIterator[Delta]]:
        deltas = self.deltas
        if wanted := self._advice(generation):
            self.advised.append(generation)
            said = self.advice[wanted]
            deltas = [Delta(said, 1) if isinstance(said, str) else said]
        else:
            self.generations.append(generation)
            self._check_length(generation)
        try:
            yield self._said(deltas)
        finally:
            self.freed = True

    def _advice(self, generation: Generation) -> str:
        """The words of the instructions that there is advice for."""
        prompt = generation.prompt
        instructions = prompt.messages[0].content if isinstance(prompt, Chat) else ""
        return next((words for words in self.advice if words in instructions), "")

    async def _said(self, deltas: Sequence[Delta | MeshError | None]) -> AsyncIterator[Delta]:
        for delta in deltas:
            if delta is None:
                await asyncio.Event().wait()
            elif isinstance(delta, MeshError):
                raise delta
            else:
                await asyncio.sleep(0)
                yield delta

    def _check_length(self, generation: Generation) -> None:
        """Refuse what is too long for the model, with its numbers, as engines do."""
        (model,) = (model for model in self.models if model.name == generation.model)
        if isinstance(generation.prompt, Chat):
            tokens = _words(generation.prompt)
            if tokens + generation.max_tokens > model.max_model_tokens:
                numbers = {"prompt_tokens": str(tokens), "max_model_tokens": str(model.max_model_tokens)}
                raise InvalidArgument("PROMPT_TOO_LONG", "too long", metadata=numbers)

    async def count_tokens(self, model: str, prompt: Chat) -> int:
        self.counted += 1
        return _words(prompt)

    async def list_models(self) -> Sequence[Model]:
        self.asked_for_models += 1
        return self.models


def _words(prompt: Chat) -> int:
    return sum(len(said.content.split()) for said in prompt.messages)


@dataclass
class MemoryStore:
    """Keeps answers and sessions; `away` makes it fail as Redis does, `delay_s` makes it slow."""

    away: bool = False
    delay_s: float = 0.0
    answers: dict[tuple[Identity, str], Answer] = field(default_factory=dict)
    turns: dict[tuple[Identity, str], tuple[Turn, ...]] = field(default_factory=dict)
    summaries: dict[tuple[Identity, str], Summary] = field(default_factory=dict)

    async def save(self, owner: Identity, answer: Answer) -> None:
        await self._reach()
        self.answers[owner, answer.id] = answer

    async def put(self, owner: Identity, id: str, turn: Turn) -> None:
        await self._reach()
        turns = {each.answer: each for each in self.turns.get((owner, id), ())}
        self.turns[owner, id] = tuple({**turns, turn.answer: turn}.values())

    async def remove(self, owner: Identity, id: str, answer: str) -> None:
        await self._reach()
        left = tuple(turn for turn in self.turns.pop((owner, id), ()) if turn.answer != answer)
        if left:
            self.turns[owner, id] = left

    async def _reach(self) -> None:
        await asyncio.sleep(self.delay_s)
        if self.away:
            raise Unavailable("STORE_UNAVAILABLE", "away")


class MemorySessions(MemoryStore):
    """The store as the sessions see it."""

    async def load(self, owner: Identity, id: str) -> Session | None:
        await self._reach()
        turns = self.turns.get((owner, id))
        now = datetime.now(UTC)
        return Session(id, "title", now, now, now, turns, self.summaries.get((owner, id))) if turns else None

    async def summarise(self, owner: Identity, id: str, summary: Summary) -> None:
        await self._reach()
        self.summaries[owner, id] = summary

    async def list(self, owner: Identity, cursor: str, limit: int) -> Page:
        return Page([], "")

    async def delete(self, owner: Identity, id: str) -> bool:
        return self.turns.pop((owner, id), None) is not None


class MemoryAnswers(MemoryStore):
    """The store as the answers see it."""

    async def load(self, owner: Identity, id: str) -> Answer | None:
        await self._reach()
        return self.answers.get((owner, id))


@dataclass
class MemoryJournal:
    """Keeps the parts of all answers in one list; `away` makes it fail as Redis does, a `fault` as nobody foresaw."""

    away: bool = False
    fault: Exception | None = None
    parts: list[Part] = field(default_factory=list)

    async def add(self, parts: Sequence[Part]) -> None:
        self._reach()
        if self.fault:
            raise self.fault
        self.parts += parts

    async def read(self, owner: Identity, answer: str, begin: int = 0) -> Sequence[Part]:
        self._reach()
        return [part for part in self.parts if (part.owner, part.answer) == (owner, answer)][begin:]

    async def live(self, producer: str, for_s: float) -> None:
        self._reach()

    async def lives(self, producer: str) -> bool:
        self._reach()
        return True

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("STORE_UNAVAILABLE", "away")


class World:
    """All that an answer needs; change it, then begin one."""

    def __init__(self) -> None:
        self.retriever = MemoryRetriever()
        self.generator = MemoryGenerator()
        self.sessions = MemorySessions()
        self.answers = MemoryAnswers()
        self.summaries: Summaries | None = None
        self.limits = Limits(top_k=8, history_turns=2, max_answer_tokens=100, save_timeout_s=1.0)

    def begin(self, question: Question = QUESTION, owner: Identity = ALICE, **changes: Any) -> Course:
        """The course of the question, with changes to it."""
        models = Models(self.generator, ttl_s=60.0)
        parts = (self.retriever, self.generator, models, self.sessions, self.answers, self.limits)
        return Answering(Ports(*parts, summaries=self.summaries)).begin(replace(question, **changes), owner)

    def under_way(self, told: "Told", model: Model = EXTRACTIVE, **changes: Any) -> Course:
        """The course of the question, come to its steps."""
        course = self.begin(**changes)
        course.model = model
        course._emit = told
        return course

    @property
    def kept(self) -> Answer:
        """The one answer kept."""
        (answer,) = self.answers.answers.values()
        return answer


class Told:
    """The events of a course, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def __call__(self, event: Event) -> None:
        self.events.append(event)

    def details(self, stage: str) -> list[Mapping[str, Any]]:
        """What the stage said that it did, each time that it was done."""
        return [
            e.detail for e in self.events if isinstance(e, Stage) and (e.stage, e.state) == (stage, StageState.DONE)
        ]

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]
