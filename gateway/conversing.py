"""Holds a conversation on one stream: questions one at a time, each of which may be interrupted or refined."""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from gateway.answers import Question
from gateway.awaiting import Awaiting
from gateway.events import Numbered
from gateway.relaying import Relay
from gateway.tools import ToolResult
from gateway.window import Window
from meshkit.errors import Internal, InvalidArgument, MeshError, NotFound, invalid

logger = logging.getLogger(__name__)

_MAX_QUESTION_BYTES = 32768


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Stops the answer that is being given."""


@dataclass(frozen=True, slots=True)
class Refine:
    """Adds to the question and narrows its search; its answer begins anew."""

    text: str = ""
    filter: str = ""


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Says which event was read last."""

    sequence: int


@dataclass(frozen=True, slots=True)
class _End:
    """The caller says no more: it left, or what it said last was wrong."""

    error: MeshError | None = None


Said = Question | Interrupt | Refine | Acknowledge | ToolResult
_Heard = Said | _End
OpenRelay = Callable[[Question, Awaiting], Relay]


async def converse(
    said: AsyncIterator[Said], open_relay: OpenRelay, window_events: int
) -> AsyncGenerator[Numbered, None]:
    """The events of the answers to the caller's questions, until the caller has said all and was answered.

    An interrupt with nothing to stop is ignored: it crossed the answer's last event. So are an acknowledgement and a
    tool's result that come too late; a refinement that does so refines the question answered last. Raises
    InvalidArgument OUT_OF_ORDER for a question asked while another is being answered, and a refinement of none,
    NotFound TOOL_NOT_FOUND for the result of a call that never was, and what `said` and the answers raise.
    """
    async with _listening(said) as heard:
        talk = _Conversation(heard, window_events)
        message = await heard.get()
        while not isinstance(message, _End):
            question = talk.question(message)
            if question is None:
                message = await heard.get()
                continue
            async with open_relay(question, talk.awaiting) as relay, talk.following(relay) as following:
                async for event in relay:
                    await talk.window.admit(event.sequence)
                    yield event
            message = await heard.get() if following.cancelled() else following.result()
        if message.error:
            raise message.error


@asynccontextmanager
async def _listening(said: AsyncIterator[Said]) -> AsyncIterator[asyncio.Queue[_Heard]]:
    """A queue of what the caller says, and at last _End; all but one message wait in gRPC's own buffers."""
    heard: asyncio.Queue[_Heard] = asyncio.Queue(1)
    listening = asyncio.create_task(_listen(said, heard))
    try:
        yield heard
    finally:
        listening.cancel()


async def _listen(said: AsyncIterator[Said], heard: asyncio.Queue[_Heard]) -> None:
    try:
        async for message in said:
            await heard.put(message)
    except MeshError as error:
        await heard.put(_End(error))
    except Exception:
        logger.exception("unexpected error")
        await heard.put(_End(Internal("INTERNAL_ERROR", "internal error")))
    else:
        await heard.put(_End())


class _Conversation:
    """What is said in one conversation, and what it does; during an answer the task of `following` hears it."""

    def __init__(self, heard: asyncio.Queue[_Heard], window_events: int) -> None:
        self.awaiting = Awaiting()
        self.window = Window(window_events)
        self._heard = heard
        self._asked: Question | None = None

    def question(self, message: Said) -> Question | None:
        """The question to answer next, or None; raises MeshError for what cannot be said between answers."""
        match message:
            case Acknowledge(sequence):
                self.window.acknowledge(sequence)
                return None
            case ToolResult():
                self.awaiting.deliver(message)
                return None
            case Interrupt():
                return None
            case Refine():
                self._asked = _refined(self._asked, message)
            case Question():
                # Named here, so that a refined question goes on the same session.
                self._asked = message if message.session else replace(message, session=uuid.uuid4().hex)
        self.window.begin()
        return self._asked

    @asynccontextmanager
    async def following(self, relay: Relay) -> AsyncIterator[asyncio.Task[_Heard]]:
        """Acts on what is said during an answer; the task's result, if any, is what was said after it."""
        following = asyncio.create_task(self._follow(relay))
        try:
            yield following
        finally:
            # A cancelled `get` leaves its message in the queue; a task that is done keeps its result.
            following.cancel()
            await asyncio.wait({following})

    async def _follow(self, relay: Relay) -> _Heard:
        ending = False
        try:
            while True:
                match message := await self._heard.get():
                    case Acknowledge(sequence):
                        self.window.acknowledge(sequence)
                    case ToolResult():
                        self._deliver(message, relay)
                    case Interrupt():
                        ending = True
                        self._stop(relay)
                    case Refine():
                        self._stop(relay)
                        return message
                    case _End(error):
                        self.awaiting.hang_up()
                        if error:
                            self._stop(relay, error)
                        return message
                    case Question() if not ending and not relay.finished:
                        # One that has ended meanwhile is not stopped, and the question then comes in order.
                        self._stop(relay, _out_of_order("interrupt", "a question was asked while another was answered"))
                        return message
                    case _:
                        return message
        finally:
            # Nobody listens any more.
            self.window.lift()

    def _deliver(self, result: ToolResult, relay: Relay) -> None:
        try:
            self.awaiting.deliver(result)
        except NotFound as error:
            self._stop(relay, error)

    def _stop(self, relay: Relay, why: MeshError | None = None) -> None:
        self.window.lift()
        relay.stop(why)


def _refined(question: Question | None, refine: Refine) -> Question:
    """The question with what is added to it; a new one, so that its request id is not the first one's."""
    if question is None:
        raise _out_of_order("ask", "there is no question to refine")
    text = " ".join(filter(None, (question.text, refine.text)))
    if len(text.encode()) > _MAX_QUESTION_BYTES:
        raise invalid("refine.question", f"makes the question longer than {_MAX_QUESTION_BYTES} bytes")
    filters = [each for each in (question.retrieval.filter, refine.filter) if each]
    both = " AND ".join(f"({each})" for each in filters)
    return replace(question, text=text, retrieval=replace(question.retrieval, filter=both), request_id="")


def _out_of_order(expected: str, text: str) -> InvalidArgument:
    return InvalidArgument("OUT_OF_ORDER", f"{text}; expected: {expected}", metadata={"expected": expected})
