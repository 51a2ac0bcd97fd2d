"""One answer on its way: what the steps of its course know of it, and what they may do to it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

from gateway.answers import Abstention, Answer, AnswerStore, Exchange, FinishReason, Question, Timing
from gateway.awaiting import Awaiting
from gateway.budget import Budget, Experience
from gateway.caching import AnswerCache
from gateway.events import Emit, Event, Stage, StageState, Started
from gateway.failures import Failure
from gateway.generation import Generator, Model, Prompt
from gateway.keeping import Keeping
from gateway.models import Models
from gateway.plans import Plan, PlanLimits
from gateway.remembering import Bound, remember
from gateway.repeating import answer_id, check_same, repeat, session_id
from gateway.retrieval import Degradation, Found, Hit, Retriever
from gateway.sessions import Session, SessionStore, Turn
from gateway.summarising import Older, Summaries
from gateway.tools import ToolExchange, ToolLimits
from gateway.web import Web
from meshkit import rpc
from meshkit.errors import InvalidArgument, MeshError, invalid
from meshkit.identity import Identity

logger = logging.getLogger(__name__)

_BROKEN = {FinishReason.INTERRUPTED, FinishReason.FAILED}


@dataclass(frozen=True, slots=True)
class Limits:
    """What an answer may take where its question does not say."""

    top_k: int
    history_turns: int
    max_answer_tokens: int
    save_timeout_s: float
    min_grounding: float = 0.5
    tools: ToolLimits = field(default_factory=ToolLimits)
    planning: PlanLimits = field(default_factory=PlanLimits)


@dataclass(frozen=True, slots=True)
class Ports:
    """What the steps work with; lives as long as the process."""

    retriever: Retriever
    generator: Generator
    models: Models
    sessions: SessionStore
    answers: AnswerStore
    limits: Limits
    web: Web | None = None
    experience: Experience = field(default_factory=Experience)
    summaries: Summaries | None = None
    cache: AnswerCache | None = None


class State(Enum):
    """Where a course is: the step that comes next, or its end."""

    CACHE = auto()
    PLAN = auto()
    CALL = auto()
    RETRIEVE = auto()
    JUDGE = auto()
    WRITE = auto()
    END = auto()


Step = Callable[["Course"], Awaitable[State]]


class Course:
    """One answer on its way; `run` it once. Only the task that runs it changes it, and steps run one at a time.

    A step does its work, tells it by `emit`, and returns the state that comes next; `steps` has one for each state but
    END. What a step finds out stands in the attributes, for the steps behind it. `awaiting` hears what the caller's
    tools answer; None where the caller cannot say so before the answer ends.
    """

    def __init__(
        self,
        ports: Ports,
        steps: Mapping[State, Step],
        question: Question,
        owner: Identity,
        awaiting: Awaiting | None = None,
    ) -> None:
        self.ports = ports
        self.question = question
        self.owner = owner
        self.budget = Budget.current(ports.limits.planning.reserve_s, ports.experience)
        self.history: tuple[Exchange, ...] = question.history
        self.summary = ""
        self._older: Sequence[Turn] = ()
        self.plan = Plan()
        self.found = Found(())
        self.prompt: Prompt | None = None
        most_bytes = ports.limits.tools.max_result_bytes
        self.exchanges: tuple[ToolExchange, ...] = tuple(each.cut(most_bytes) for each in question.tool_exchanges)
        self.awaiting = awaiting
        self._steps = steps
        self._begin_s = time.monotonic()
        self.keeping = Keeping(ports.answers, ports.sessions, owner, ports.limits.save_timeout_s)
        self._text: list[str] = []
        self._emit: Emit = unheard
        self.when_answered: Callable[[Answer], None] = forgotten
        # On Converse a question may be asked twice in one call.
        call = None if awaiting else rpc.current()
        id = answer_id(question, owner, call.request_id if call else "")
        # Fields of the answer, which is made of them when it is asked for: much is noted between two looks at it.
        self._noted: dict[str, Any] = {
            "id": id,
            "session": session_id(owner, id) if question.session == "" else question.session or "",
            "collection": question.collection,
            "question": question.text,
            "text": "",
            "finish_reason": FinishReason.STOP,
        }
        self._answer: Answer | None = None

    async def run(self, emit: Emit) -> Answer:
        """Give the answer, event by event, and return it; raises MeshError.

        However it ends the turn is kept: a caller who leaves finds what was said, marked interrupted.
        """
        self._emit = emit
        if given := await self._given_before():
            await repeat(given, emit)
            return given
        try:
            await self._walk()
        except asyncio.CancelledError:
            await self._keep(self.so_far(FinishReason.INTERRUPTED))
            raise
        except MeshError as error:
            await self._keep(replace(self.so_far(FinishReason.FAILED), failure=Failure.of(error)))
            raise
        await self._keep(self.so_far())
        answer = self.so_far()
        self.when_answered(answer)
        self._summarise()
        await emit(answer)
        return answer

    def so_far(self, reason: FinishReason | None = None) -> Answer:
        """The answer as far as it has come, ended for the reason given."""
        return Answer(**{**self._noted, "text": self.text, "finish_reason": reason or self._noted["finish_reason"]})

    # --- What steps read ---

    @property
    def text(self) -> str:
        """What has been said so far."""
        return "".join(self._text)

    @property
    def answer(self) -> Answer:
        """The answer but for its text."""
        if self._answer is None:
            self._answer = Answer(**self._noted)
        return self._answer

    def elapsed_s(self) -> float:
        """Seconds since the question came."""
        return time.monotonic() - self._begin_s

    # --- What steps do ---

    async def emit(self, event: Event) -> None:
        """Tell the caller; waits while the caller is far behind."""
        await self._emit(event)

    async def announce(self, *, cached: bool = False) -> None:
        """Say that the answer has begun; before any other event."""
        answer = self.answer
        await self.emit(Started(answer.id, answer.session, answer.collection, answer.model, cached))

    def say(self, text: str) -> None:
        """Go on with the text; before its event, so that a caller who leaves meanwhile has been told it."""
        self._text.append(text)

    def cite(self, hits: Sequence[Hit]) -> Sequence[int]:
        """Let the answer rest on these hits too, behind those that it has, and give the numbers to cite them by."""
        known = list(self.found.hits)
        known += [hit for hit in hits if all(hit.chunk != each.chunk for each in known)]
        self.found = replace(self.found, hits=tuple(known))
        chunks = [each.chunk for each in known]
        return [chunks.index(hit.chunk) + 1 for hit in hits]

    def note(self, **changes: Any) -> None:
        """Change fields of the answer."""
        self._noted.update(changes)
        self._answer = None

    def degrade(self, *left_out: Degradation) -> None:
        """Say what was left out, once each."""
        known = self._noted.get("degradations", ())
        if new := [each for each in dict.fromkeys(left_out) if each not in known]:
            self.note(degradations=(*known, *new))

    def end(self, reason: FinishReason) -> State:
        """The course has come to its end, for the reason."""
        self.note(finish_reason=reason)
        return State.END

    def abstain(self, why: Abstention) -> State:
        """End without an answer: nothing of what was said stays."""
        self._text.clear()
        self.note(abstention=why, citations=())
        return self.end(FinishReason.ABSTAINED)

    @asynccontextmanager
    async def stage(self, stage: str) -> AsyncIterator[dict[str, Any]]:
        """Announce and time a stage; the body fills in the detail. A stage that fails is never done."""
        detail: dict[str, Any] = {}
        begin_s = self.elapsed_s()
        await self.emit(Stage(stage, StageState.STARTED))
        yield detail
        duration_s = self.time(stage, begin_s)
        await self.emit(Stage(stage, StageState.DONE, duration_s, detail))

    async def skip(self, *stages: str) -> None:
        """Announce stages that are left out."""
        for stage in stages:
            await self.emit(Stage(stage, StageState.SKIPPED))

    def time(self, stage: str, begin_s: float) -> float:
        """Note how long the stage has taken, in seconds, since `begin_s` of `elapsed_s`."""
        duration_s = self.elapsed_s() - begin_s
        self.note(timings=(*self._noted.get("timings", ()), Timing(stage, begin_s, duration_s)))
        return duration_s

    # --- The course itself ---

    async def _walk(self) -> None:
        await self._open()
        state = State.CACHE
        while state is not State.END:
            state = await self._steps[state](self)

    async def _open(self) -> None:
        """Load what the answer goes on from; raises what makes the question unanswerable."""
        if not self.question.text.strip():
            raise invalid("question", "is blank")
        session = None
        if self.question.session:
            # Raises Unavailable where it cannot be read: it may exist.
            session = await self.ports.sessions.load(self.owner, self.question.session)
        self.model: Model = await self._choose_model()
        self._recall(session)
        self.keeping.begin(self.so_far(FinishReason.INTERRUPTED))

    async def _given_before(self) -> Answer | None:
        """The answer that this request id was given; one that broke off is made anew."""
        if not self.question.request_id:
            return None
        answer = await self.ports.answers.load(self.owner, self.answer.id)
        if answer:
            check_same(self.question, answer)
        return answer if answer and answer.finish_reason not in _BROKEN else None

    def _recall(self, session: Session | None) -> None:
        """Take from the session what the model has room for: a quarter of its context at most."""
        if session is None:
            return
        limits, context = self.ports.limits, self.model.max_model_tokens
        tokens = limits.planning.history_tokens
        bound = Bound(limits.history_turns, min(tokens, context // 4) if context else tokens)
        memory = remember(session, bound)
        self.history, self.summary, self._older = memory.history, memory.summary, memory.older

    def _summarise(self) -> None:
        """Have the turns that the model was not shown summarised, once the answer is given."""
        if self._older and self.ports.summaries and not self.model.extractive:
            older = Older(self.owner, self.answer.session, self.summary, self._older)
            self.ports.summaries.want(self.model, older)

    async def _choose_model(self) -> Model:
        model = await self.ports.models.choose(self.question.model)
        form, must_call = self.question.writing.structured_output, self.question.planning.must_call
        if (form or must_call) and not model.structured_output:
            metadata = {"option": "structured_output" if form else "tool_choice", "model": model.name}
            raise InvalidArgument("UNSUPPORTED_BY_ENGINE", "the model cannot hold to a form", metadata=metadata)
        self.note(model=model.name)
        return model

    async def _keep(self, answer: Answer) -> None:
        """Save the answer; where that takes too long, it says so."""
        if not await self.keeping.keep(answer):
            self.degrade(Degradation("session", "STORE_UNAVAILABLE"))


def forgotten(_answer: Answer) -> None:
    """Takes the answer of a course that nobody keeps for others."""


async def unheard(_event: Event) -> None:
    """Takes the events of an answer of which only the end is wanted."""
