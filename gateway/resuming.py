"""Takes answers up again: from this process, from the journal of one that lives or died, from the kept answer."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

from gateway.answers import Answer, CachePolicy, Citation, FinishReason, Question
from gateway.course import Ports
from gateway.events import Event, Failed, Numbered, Started, Token
from gateway.failures import Failure
from gateway.journal import Journal, Part, Record, recorded
from gateway.journaling import background, opening
from gateway.relaying import Relay, Underway
from gateway.repeating import told_again
from gateway.sessions import Turn
from gateway.underway import AnswersUnderway
from meshkit.errors import FieldViolation, InvalidArgument, MeshError, NotFound, Unavailable, not_found
from meshkit.identity import Identity

# At an answer that nobody seems to make: it may have begun, or ended, a moment ago.
_LOOKS = 2


@dataclass(frozen=True, slots=True)
class Resuming:
    """Reads answers of any process, each for the caller who asked; lives as long as the process, needs no closing."""

    underway: AnswersUnderway
    journal: Journal
    ports: Ports
    poll_s: float

    async def resume(self, owner: Identity, id: str, after: int) -> AsyncGenerator[Numbered, None]:
        """The answer's events behind the number `after`, and then those that are still made; nothing is made twice.

        Where the process that made it died, what is known of it is kept and told, and the last event is Failed. Its
        error, ENGINE_UNAVAILABLE, is raised then, as any answer's that failed. Raises NotFound ANSWER_NOT_FOUND, and
        InvalidArgument INVALID_FIELD for a number that the answer does not have.
        """
        here = self.underway.find(owner, id)
        async with aclosing(_told(here, after) if here else self._written(owner, id, after)) as events:
            async for numbered in events:
                yield numbered
                if isinstance(numbered.event, Failed):
                    raise numbered.event.error

    async def record(self, owner: Identity, id: str) -> Record | None:
        """How the answer came about, as far as it is known; None where it is not, or not any more."""
        here = self.underway.find(owner, id)
        if here is None:
            return recorded(await self.journal.read(owner, id))
        return Record(opening(here.course, ""), tuple(here.events), background(here.course))

    async def answer(self, owner: Identity, id: str) -> Answer:
        """The answer as it ended; one whose process died is settled now.

        Raises NotFound ANSWER_NOT_FOUND, also for one that has not ended.
        """
        if kept := await self.ports.answers.load(owner, id):
            return kept
        record = recorded(await self.journal.read(owner, id))
        if record is None or record.ended or await self.journal.lives(record.opening.producer):
            raise _unknown(id)
        return await self._settle(owner, id, record)

    async def explain(self, owner: Identity, id: str) -> tuple[Answer, Record | None]:
        """The answer, as far as it has come, and how it came about; raises NotFound ANSWER_NOT_FOUND."""
        record, kept = await self.record(owner, id), await self.ports.answers.load(owner, id)
        if kept is None and record is None:
            raise _unknown(id)
        return kept or _known(cast(Record, record), FinishReason.INTERRUPTED), record

    async def question(self, owner: Identity, id: str) -> Question:
        """The answer's question with all of its options, to be asked again apart from its conversation.

        Raises NotFound ANSWER_NOT_FOUND, also where only the answer is kept and not how it was asked for.
        """
        record = await self.record(owner, id)
        if record is None:
            raise _unknown(id)
        asked = record.opening.question
        history = record.background.history if record.background else asked.history
        return replace(asked, session=None, history=history, cache=CachePolicy.BYPASS, linger_s=0.0, request_id="")

    async def _written(self, owner: Identity, id: str, after: int) -> AsyncGenerator[Numbered, None]:
        """What the journal has, followed while its process lives; then the end, in whatever way it came."""
        parts, record, looks, told = list[Part](), None, _LOOKS, after
        while looks:
            parts += await self.journal.read(owner, id, len(parts))
            record = recorded(parts)
            for numbered in record.events[told:] if record else ():
                yield numbered
                told = numbered.sequence
            if record and record.ended:
                _check(after, len(record.events))
                if isinstance(last := record.events[-1].event, Failed):
                    raise last.error
                return
            # Asked before the journal is read once more: what is written last may have come just before the end.
            if not (record and await self.journal.lives(record.opening.producer)):
                looks -= 1
            await asyncio.sleep(self.poll_s)
        ending = await self.ports.answers.load(owner, id) or await self._settle(owner, id, record)
        for event in _rest(ending, record, after):
            told += 1
            yield Numbered(told, record.events[-1].elapsed_s if record and record.events else 0.0, event)

    async def _settle(self, owner: Identity, id: str, record: Record | None) -> Answer:
        """Keep what is known of an answer whose process died, as an answer that failed."""
        if record is None:
            raise _unknown(id)
        answer = _known(record, FinishReason.FAILED, Failure.of(_lost()))
        await self.ports.answers.save(owner, answer)
        if answer.session:
            await self.ports.sessions.put(owner, answer.session, Turn.of(answer, record.opening.create_time))
        return answer


async def _told(here: Underway, after: int) -> AsyncGenerator[Numbered, None]:
    """The events of an answer of this process."""
    _check(after, len(here.events))
    async with Relay(here, after) as relay:
        async for numbered in relay:
            yield numbered


def _check(after: int, count: int) -> None:
    if after > count:
        text = f"the answer has {count} events"
        violations = [FieldViolation("after_sequence", text)]
        raise InvalidArgument("INVALID_FIELD", text, metadata={"field": "after_sequence"}, violations=violations)


def _unknown(id: str) -> NotFound:
    return not_found("answer", f"answers/{id}", "ANSWER_NOT_FOUND")


def _known(record: Record, reason: FinishReason, failure: Failure | None = None) -> Answer:
    """The answer as far as its events tell it."""
    events = [numbered.event for numbered in record.events]
    return replace(
        record.opening.answer,
        text=_text(record),
        finish_reason=reason,
        model=next((event.model for event in events if isinstance(event, Started)), ""),
        citations=tuple(event for event in events if isinstance(event, Citation)),
        failure=failure,
    )


def _rest(answer: Answer, record: Record | None, after: int) -> list[Event]:
    """What ends the telling of a kept answer: what the record lacks of it, and the end.

    A reader who has more events than the record finds the rest of the text in the last one only.
    """
    events: list[Event] = []
    if record is None and after == 0:
        events = told_again(answer)
    elif record and after <= len(record.events) and (text := answer.text.removeprefix(_text(record))):
        events = [Token(text)]
    return [*events, Failed(answer.failure.error()) if answer.failure else answer]


def _text(record: Record) -> str:
    return "".join(numbered.event.text for numbered in record.events if isinstance(numbered.event, Token))


def _lost() -> MeshError:
    return Unavailable("ENGINE_UNAVAILABLE", "the process that made the answer died, and the rest was lost")
