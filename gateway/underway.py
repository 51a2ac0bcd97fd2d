"""The answers under way in this process: who asks, who joins, and what becomes of one whose reader has gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from gateway.answering import Answering
from gateway.answers import Answer, CachePolicy, Question
from gateway.awaiting import Awaiting
from gateway.budget import Budget
from gateway.equality import question_key
from gateway.journaling import Journaling
from gateway.relaying import Pace, Relay, Underway
from gateway.repeating import check_same
from meshkit.identity import Identity

# Of a caller's time, what the answer that it follows has left at least.
_FAIR_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Lingering:
    """How long answers may go on without a reader, and how many of them at once."""

    max_s: float
    max_answers: int


_Place: TypeAlias = tuple[str, str, str]


class AnswersUnderway:
    """Every answer of this process, from its question until it is written down; `open_answers` opens and closes it.

    Questions that are equal share one generation: the first one leads and the others follow, each with an answer of
    its own. What this owns changes in the loop's one thread only.
    """

    def __init__(self, answering: Answering, journaling: Journaling, pace: Pace, lingering: Lingering) -> None:
        self._answering = answering
        self._journaling = journaling
        self._pace = pace
        self._limits = lingering
        self._answers: dict[_Place, Underway] = {}
        self._leaders: dict[str, Underway] = {}
        self._lingering: dict[Underway, asyncio.TimerHandle] = {}

    def ask(self, question: Question, owner: Identity, awaiting: Awaiting | None = None) -> Relay:
        """A reader of the question's answer: a new one, or the one under way with the same request id.

        One with `awaiting`, which hears its caller, shares its generation with nobody, so that who stops it stops
        nobody else's. Raises InvalidArgument REQUEST_ID_REUSED.
        """
        key = "" if awaiting or question.cache is CachePolicy.BYPASS else _key(question, owner)
        leader = self._leader(key)
        course = self._answering.begin(question, owner, awaiting, leader)
        place = _place(owner, course.answer.id)
        if (present := self._answers.get(place)) and not present.ended:
            check_same(question, present.course.answer)
            return Relay(present)
        underway = Underway(course, self._pace, self._left, partial(self._ended, key))
        self._answers[place] = underway
        if key and not leader:
            self._leaders[key] = underway
        self._journaling.begin(underway, self._forget, at_once=question.linger_s > 0)
        return Relay(underway)

    async def once(self, question: Question, owner: Identity) -> Answer:
        """The question's whole answer; raises MeshError."""
        async with self.ask(question, owner) as relay:
            return await relay.last()

    def find(self, owner: Identity, id: str) -> Underway | None:
        """The owner's answer, if it is under way here or ended a moment ago."""
        return self._answers.get(_place(owner, id))

    async def close(self) -> None:
        """End what is under way, and return when it is kept."""
        running = [underway for underway in self._answers.values() if not underway.ended]
        await asyncio.gather(*(underway.close() for underway in running))
        for timer in self._lingering.values():
            timer.cancel()

    def _leader(self, key: str) -> Underway | None:
        """The answer to follow: one with much less time than this caller has would be cut short for both."""
        leader = self._leaders.get(key)
        if leader is None or leader.stopping:
            return None
        return leader if leader.course.budget.left_s() >= _FAIR_SHARE * Budget.current().left_s() else None

    async def _left(self, underway: Underway) -> None:
        """The last reader has gone before the end."""
        if timer := self._lingering.pop(underway, None):
            timer.cancel()
        linger_s = min(underway.course.question.linger_s, self._limits.max_s)
        if linger_s and len(self._lingering) < self._limits.max_answers:
            timer = asyncio.get_running_loop().call_later(linger_s, self._expire, underway)
            self._lingering[underway] = timer
        else:
            await underway.close()

    def _expire(self, underway: Underway) -> None:
        del self._lingering[underway]
        if not underway.readers:
            underway.stop()

    def _ended(self, key: str, underway: Underway) -> None:
        """An answer that has ended leads nobody any more."""
        if self._leaders.get(key) is underway:
            del self._leaders[key]

    def _forget(self, underway: Underway) -> None:
        """The answer is written down: whoever wants it reads it there."""
        if timer := self._lingering.pop(underway, None):
            timer.cancel()
        place = _place(underway.course.owner, underway.course.answer.id)
        if self._answers.get(place) is underway:
            del self._answers[place]


@asynccontextmanager
async def open_answers(
    answering: Answering, journaling: Journaling, pace: Pace, lingering: Lingering
) -> AsyncIterator[AnswersUnderway]:
    """The answers under way until the body ends, when they are ended."""
    answers = AnswersUnderway(answering, journaling, pace, lingering)
    try:
        yield answers
    finally:
        await answers.close()


def _place(owner: Identity, id: str) -> _Place:
    return owner.tenant, owner.subject, id


def _key(question: Question, owner: Identity) -> str:
    """What is shared by questions that share a generation; "" for one that shares none."""
    key = question_key(question, owner)
    return key and f"{key} {question.cache.name}"
