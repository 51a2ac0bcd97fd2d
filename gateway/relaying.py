"""Relays the events of an answer to its caller while the answer is still being made."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from gateway.answers import Answer, FinishReason
from gateway.course import Course
from gateway.events import Event, Failed, Heartbeat, Numbered, Numbering, Stage, Started
from meshkit.errors import Internal, MeshError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How events are relayed.

    `buffer_events` wait for a slow caller before the engine does. `hold_s` is how long the first events wait
    for the search, so that a question that cannot be answered fails with a plain status, which HTTP shows.
    """

    heartbeat_s: float
    hold_s: float
    buffer_events: int
    leave_timeout_s: float


class Relay:
    """The events of an answer under way, in order, within `async with`: leaving it ends and keeps the answer.

    The last event is an Answer, or Failed, after which the error itself is raised. A failure before any event
    was relayed is only raised. The course runs in a task of its own, which fills the queue; the caller's task
    empties and numbers it.
    """

    def __init__(self, course: Course, pace: Pace) -> None:
        self.finished = False
        self._course = course
        self._pace = pace
        self._numbering = Numbering()
        self._queue: asyncio.Queue[Event] = asyncio.Queue(pace.buffer_events)
        self._worth_sending = asyncio.Event()
        self._failure: MeshError | None = None
        self._stopping = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._produce())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=self._pace.leave_timeout_s)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Numbered:
        if not self._numbering.last:
            await self._first()
        if self.finished:
            raise self._failure or StopAsyncIteration
        event = await self._next()
        self.finished = isinstance(event, Answer | Failed)
        return self._numbering.number(event)

    def stop(self, why: MeshError | None = None) -> None:
        """End the answer where it is, with the answer so far or with an error; once is enough."""
        if not self._stopping:
            self._stopping = True
            self._failure = why
            self._task.cancel()

    async def _first(self) -> None:
        """Wait until there is more to send than that the work has begun."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pace.hold_s):
                await self._worth_sending.wait()
        self.finished = self._failure is not None

    async def _next(self) -> Event:
        if not self._queue.empty():
            return self._queue.get_nowait()
        try:
            async with asyncio.timeout(self._pace.heartbeat_s):
                return await self._queue.get()
        except TimeoutError:
            return Heartbeat()

    async def _emit(self, event: Event) -> None:
        await self._queue.put(event)
        if not isinstance(event, Started | Stage):
            self._worth_sending.set()

    async def _produce(self) -> None:
        try:
            await self._course.run(self._emit)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            await self._emit(Failed(self._failure) if self._failure else self._interrupted())
        except MeshError as error:
            await self._fail(error)
        except Exception:
            logger.exception("unexpected error")
            await self._fail(Internal("INTERNAL_ERROR", "internal error"))

    def _interrupted(self) -> Answer:
        return self._course.so_far(FinishReason.INTERRUPTED)

    async def _fail(self, error: MeshError) -> None:
        self._failure = error
        await self._emit(Failed(error))
