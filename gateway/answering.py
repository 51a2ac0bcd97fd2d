"""The course of an answer: load, plan, retrieve, prompt, generate, cite, save."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from gateway.abstaining import Abstaining
from gateway.answers import (
    Abstention,
    Answer,
    AnswerStore,
    Exchange,
    Failure,
    FinishReason,
    Question,
    Timing,
)
from gateway.citing import Citer
from gateway.events import Emit, Event, Retrieved, Stage, StageState, Started, Token
from gateway.generation import Delta, Ending, Generation, Generator, Model
from gateway.models import Models
from gateway.prompting import Parts, chat, grounded, passages_of, shortened
from gateway.repeating import answer_id, check_same, repeat
from gateway.retrieval import Degradation, Found, Retriever, Search
from gateway.sessions import SessionStore, Turn
from meshkit.errors import InvalidArgument, MeshError, Unavailable
from meshkit.identity import Identity

logger = logging.getLogger(__name__)

_REASONS = {
    Ending.STOP: FinishReason.STOP,
    Ending.LENGTH: FinishReason.LENGTH,
    Ending.ABSTAINED: FinishReason.ABSTAINED,
    Ending.TOOL_CALL: FinishReason.TOOL_CALL,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What an answer may take where its question does not say."""

    top_k: int
    history_turns: int
    max_answer_tokens: int
    save_timeout_s: float


@dataclass(frozen=True, slots=True)
class Answering:
    """Begins the courses of answers; lives as long as the process and owns nothing."""

    retriever: Retriever
    generator: Generator
    models: Models
    sessions: SessionStore
    answers: AnswerStore
    limits: Limits

    def begin(self, question: Question, owner: Identity) -> "Course":
        """The course of the question's answer, not yet under way."""
        return Course(self, question, owner)


class Course:
    """One answer on its way; `run` it once. Only the task that runs it changes it."""

    def __init__(self, parts: Answering, question: Question, owner: Identity) -> None:
        session = uuid.uuid4().hex if question.session == "" else question.session or ""
        self._parts = parts
        self._question = question
        self._owner = owner
        self._begin_s = time.monotonic()
        self._create_time = datetime.now(UTC)
        self._text: list[str] = []
        self._answer = Answer(
            id=answer_id(owner, question.request_id) if question.request_id else uuid.uuid4().hex,
            session=session,
            collection=question.collection,
            question=question.text,
            text="",
            finish_reason=FinishReason.STOP,
            degradations=question.left_out,
        )

    def so_far(self, reason: FinishReason) -> Answer:
        """The answer as far as it has come, ended for the reason given."""
        return replace(self._answer, text="".join(self._text), finish_reason=reason)

    async def run(self, emit: Emit) -> Answer:
        """Give the answer, event by event, and return it; raises MeshError.

        However it ends the turn is kept: a caller who leaves finds what was said, marked interrupted.
        """
        if given := await self._given_before():
            await repeat(given, emit)
            return given
        try:
            reason = await self._course(emit)
        except asyncio.CancelledError:
            await self._keep(self.so_far(FinishReason.INTERRUPTED))
            raise
        except MeshError as error:
            await self._keep(replace(self.so_far(FinishReason.FAILED), failure=Failure.of(error)))
            raise
        await self._keep(self.so_far(reason))
        answer = self.so_far(reason)
        await emit(answer)
        return answer

    async def _course(self, emit: Emit) -> FinishReason:
        history = await self._load_history()
        model = await self._choose_model()
        answer = self._answer
        await emit(Started(answer.id, answer.session, answer.collection, answer.model))
        async with self._stage("plan", emit) as detail:
            detail["action"] = "retrieve"
        found = await self._retrieve(emit)
        if not found.hits:
            return await self._abstain_unprompted(emit)
        return await self._write(model, found, self._prompt_parts(found, history), emit)

    async def _given_before(self) -> Answer | None:
        """The answer that this request id was given; one that broke off is made anew."""
        if not self._question.request_id:
            return None
        answer = await self._parts.answers.load(self._owner, self._answer.id)
        if answer:
            check_same(self._question, answer)
        broken = {FinishReason.INTERRUPTED, FinishReason.FAILED}
        return answer if answer and answer.finish_reason not in broken else None

    async def _load_history(self) -> tuple[Exchange, ...]:
        """The conversation so far; raises Unavailable for a named session that cannot be read."""
        if not self._question.session:
            return self._question.history
        session = await self._parts.sessions.load(self._owner, self._question.session)
        turns = session.turns[-self._parts.limits.history_turns :] if session else ()
        return tuple(Exchange(turn.question, turn.text) for turn in turns)

    async def _choose_model(self) -> Model:
        model = await self._parts.models.choose(self._question.model)
        if self._question.writing.structured_output and not model.structured_output:
            metadata = {"option": "structured_output", "model": model.name}
            raise InvalidArgument("UNSUPPORTED_BY_ENGINE", "the model cannot hold to a form", metadata=metadata)
        self._answer = replace(self._answer, model=model.name)
        return model

    async def _retrieve(self, emit: Emit) -> Found:
        asked = self._question.retrieval
        search = Search(
            collection=self._question.collection,
            query=self._question.text,
            top_k=asked.top_k or self._parts.limits.top_k,
            mode=asked.mode,
            filter=asked.filter,
            rerank=asked.rerank,
            diversity=asked.diversity,
            window=asked.window,
        )
        async with self._stage("retrieve", emit) as detail:
            found = await self._parts.retriever.search(search)
            detail["hits"] = len(found.hits)
            await emit(Retrieved(search.query, found.hits, found.degradations))
        self._degrade(*found.degradations)
        return found

    async def _abstain_unprompted(self, emit: Emit) -> FinishReason:
        for stage in ("prompt", "generate"):
            await emit(Stage(stage, StageState.SKIPPED))
        return self._abstain(Abstention.NO_RELEVANT_CHUNKS)

    def _abstain(self, why: Abstention) -> FinishReason:
        self._text.clear()
        self._answer = replace(self._answer, abstention=why, citations=())
        return FinishReason.ABSTAINED

    def _prompt_parts(self, found: Found, history: tuple[Exchange, ...]) -> Parts:
        writing = self._question.writing
        return Parts(
            self._question.text,
            passages_of(found.hits),
            history,
            writing.instructions,
            free_form=writing.structured_output is None,
        )

    async def _write(self, model: Model, found: Found, parts: Parts, emit: Emit) -> FinishReason:
        """Prompt and generate; both once more, with less, where the model finds the prompt too long.

        So a prompt that fits, as most do, is not counted before it is sent.
        """
        async with self._stage("prompt", emit) as detail:
            detail["passages"] = len(parts.passages)
        try:
            return await self._generate(model, found, parts, emit)
        except InvalidArgument as error:
            if error.reason != "PROMPT_TOO_LONG" or not model.max_model_tokens:
                raise
        async with self._stage("prompt", emit) as detail:
            count = partial(self._parts.generator.count_tokens, model.name)
            fitting = await shortened(parts, count, model.max_model_tokens - self._reserved_tokens(model))
            detail["passages"] = len(fitting.passages)
            detail["dropped_passages"] = len(parts.passages) - len(fitting.passages)
            detail["dropped_turns"] = len(parts.history) - len(fitting.history)
        return await self._generate(model, found, fitting, emit)

    def _generation(self, model: Model, parts: Parts) -> Generation:
        writing = self._question.writing
        if model.extractive:
            return Generation(model.name, grounded(parts), writing, writing.max_tokens)
        return Generation(model.name, chat(parts), writing, self._reserved_tokens(model), self._answer.session)

    def _reserved_tokens(self, model: Model) -> int:
        """Tokens kept free for the answer: as asked for, else at most a quarter of the context."""
        limit, context = self._parts.limits.max_answer_tokens, model.max_model_tokens
        return self._question.writing.max_tokens or (min(limit, context // 4) if context else limit)

    async def _generate(self, model: Model, found: Found, parts: Parts, emit: Emit) -> FinishReason:
        async with self._stage("generate", emit):
            return await self._hear(self._generation(model, parts), found, emit)

    async def _hear(self, generation: Generation, found: Found, emit: Emit) -> FinishReason:
        citer, abstaining = Citer(found.hits), Abstaining()
        ending, unsaid, begin_s = Ending.STOP, 0, self._elapsed_s()
        async with self._parts.generator.generate(generation) as deltas:
            async for delta in deltas:
                unsaid += delta.token_count
                if delta.text and (shown := abstaining.feed(delta.text)):
                    if not self._text:
                        self._time("first_token", begin_s)
                    await self._say(shown, unsaid, citer, emit)
                    unsaid = 0
                if abstaining.abstained:
                    break
                await self._account(delta, emit)
                ending = delta.ending or ending
        if abstaining.abstained or ending is Ending.ABSTAINED:
            return self._abstain(Abstention.INSUFFICIENT_SUPPORT)
        if rest := abstaining.rest():
            await self._say(rest, unsaid, citer, emit)
        return _REASONS[ending]

    async def _say(self, text: str, token_count: int, citer: Citer, emit: Emit) -> None:
        # Before the event: a caller who leaves while it is being sent has been told it.
        self._text.append(text)
        await emit(Token(text, token_count))
        for citation in citer.feed(text):
            self._answer = replace(self._answer, citations=(*self._answer.citations, citation))
            await emit(citation)

    async def _account(self, delta: Delta, emit: Emit) -> None:
        if delta.usage:
            self._answer = replace(self._answer, usage=delta.usage)
            await emit(delta.usage)

    async def _keep(self, answer: Answer) -> None:
        """Save the answer, whoever cancels meanwhile; where it cannot be saved, the answer says so."""
        saving = asyncio.create_task(self._save(answer))
        await asyncio.shield(saving)

    async def _save(self, answer: Answer) -> None:
        if answer.finish_reason is FinishReason.FAILED and not answer.text:
            return
        turn = _turn(answer, self._create_time)
        try:
            async with asyncio.timeout(self._parts.limits.save_timeout_s):
                await self._parts.answers.save(self._owner, answer)
                if answer.session:
                    await self._parts.sessions.append(self._owner, answer.session, turn)
        except (Unavailable, TimeoutError) as error:
            logger.warning("answer %s is not kept: %r", answer.id, error)
            self._degrade(Degradation("session", "STORE_UNAVAILABLE"))

    def _degrade(self, *left_out: Degradation) -> None:
        self._answer = replace(self._answer, degradations=(*self._answer.degradations, *left_out))

    @asynccontextmanager
    async def _stage(self, stage: str, emit: Emit) -> AsyncIterator[dict[str, str | float]]:
        """Announce and time a stage; the body fills in the detail. A stage that fails is never done."""
        detail: dict[str, str | float] = {}
        begin_s = self._elapsed_s()
        await emit(Stage(stage, StageState.STARTED))
        yield detail
        duration_s = self._time(stage, begin_s)
        await emit(Stage(stage, StageState.DONE, duration_s, detail))

    def _time(self, stage: str, begin_s: float) -> float:
        duration_s = self._elapsed_s() - begin_s
        timing = Timing(stage, begin_s, duration_s)
        self._answer = replace(self._answer, timings=(*self._answer.timings, timing))
        return duration_s

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._begin_s


async def unheard(_event: Event) -> None:
    """Takes the events of an answer of which only the end is wanted."""


def _turn(answer: Answer, create_time: datetime) -> Turn:
    return Turn(
        answer=answer.id,
        question=answer.question,
        text=answer.text,
        citations=answer.citations,
        finish_reason=answer.finish_reason,
        create_time=create_time,
    )
