"""Answers under way: their events, numbered and kept, for those who read them."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
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


class Underway:
    """An answer under way: its course in a task of its own, and its events so far; `close` it, or leave it to readers.

    The last event is an Answer, or Failed. The course's task and the heartbeat's timer add events, both by `_add`;
    readers add and remove themselves. The course waits while the reader that has come furthest has yet to read
    `buffer_events`; with no reader it waits for nobody. `left` is called when the last reader has gone before the end,
    `at_end` at the end, in whatever way it comes.
    """

    def __init__(
        self,
        course: Course,
        pace: Pace,
        left: Callable[["Underway"], Awaitable[None]] | None = None,
        at_end: Callable[["Underway"], None] = lambda _underway: None,
    ) -> None:
        self.course = course
        self.pace = pace
        self.events: list[Numbered] = []
        self.readers: set[Relay] = set()
        self.over = asyncio.Event()
        self.failure: MeshError | None = None
        self.worth_sending = asyncio.Event()
        self.grown = asyncio.Event()
        self.room = asyncio.Event()
        self._numbering = Numbering()
        self.stopping = False
        self._left = left or Underway.close
        self._at_end = at_end
        self._loop = asyncio.get_running_loop()
        self._silent_since_s = self._loop.time()
        self._beating = self._loop.call_later(pace.heartbeat_s, self._beat)
        self._task = asyncio.create_task(self._produce())
        self._task.add_done_callback(self._end)

    @property
    def ended(self) -> bool:
        """Whether the last event is there."""
        return self.over.is_set()

    def stop(self, why: MeshError | None = None) -> None:
        """End the answer where it is, with the answer so far or with an error; once is enough."""
        if not self.stopping and not self.ended:
            self.stopping = True
            self.failure = why
            self._task.cancel()

    async def close(self) -> None:
        """End the answer where it is, and return when it is kept."""
        self.stopping = True
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=self.pace.leave_timeout_s)

    async def leave(self, reader: "Relay") -> None:
        """A reader has gone."""
        self.readers.discard(reader)
        self.room.set()
        if not self.readers and not self.ended:
            await self._left(self)

    async def _emit(self, event: Event) -> None:
        while self.readers and self._unread() >= self.pace.buffer_events:
            self.room.clear()
            await self.room.wait()
        self._add(event)

    def _unread(self) -> int:
        """Events that the reader who has come furthest has yet to read."""
        return len(self.events) - max(reader.position for reader in self.readers)

    def _add(self, event: Event) -> None:
        self._silent_since_s = self._loop.time()
        self.events.append(self._numbering.number(event))
        self.grown.set()
        if not isinstance(event, Started | Stage):
            self.worth_sending.set()
        if isinstance(event, Answer | Failed):
            self.over.set()
            self._at_end(self)

    def _beat(self) -> None:
        """Fill a silence; one timer for the answer rather than one for each of its events."""
        due_s = self._silent_since_s + self.pace.heartbeat_s
        if due_s <= self._loop.time():
            # Who has not read the last events hears something; before the first one nothing has been promised.
            if self.events and not (self.readers and self._unread()):
                self._add(Heartbeat())
            due_s = self._loop.time() + self.pace.heartbeat_s
        self._beating = self._loop.call_at(due_s, self._beat)

    async def _produce(self) -> None:
        """Run the course; however it ends there is a last event, for those who read it later too."""
        last: Event | None = None
        try:
            await self.course.run(self._emit)
        except asyncio.CancelledError:
            last = Failed(self.failure) if self.failure else self._interrupted()
        except MeshError as error:
            last = self._failed(error)
        except Exception:
            logger.exception("unexpected error")
            last = self._failed(Internal("INTERNAL_ERROR", "internal error"))
        finally:
            self._beating.cancel()
        if last is not None and not self.ended:
            self._add(last)

    def _end(self, _: asyncio.Task[None]) -> None:
        """An answer that was stopped before its task ran ends too; its timer would beat for ever."""
        self._beating.cancel()
        if not self.ended:
            self._add(self._interrupted())

    def _interrupted(self) -> Answer:
        return self.course.keeping.kept or self.course.so_far(FinishReason.INTERRUPTED)

    def _failed(self, error: MeshError) -> Failed:
        self.failure = error
        return Failed(error)


class Relay:
    """A reader of an answer under way, within `async with`: its events in order, from the one after `after` on.

    After Failed the error itself is raised. A failure before any event was relayed is only raised.
    """

    def __init__(self, underway: Underway, after: int = 0) -> None:
        self.finished = False
        self.position = after
        self._underway = underway
        self._held = after == 0
        underway.readers.add(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._underway.leave(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Numbered:
        underway = self._underway
        if self._held:
            await self._first()
        if self.finished:
            raise underway.failure or StopAsyncIteration
        while self.position >= len(underway.events):
            if underway.ended:
                raise underway.failure or StopAsyncIteration
            underway.grown.clear()
            await underway.grown.wait()
        numbered = underway.events[self.position]
        self.position += 1
        underway.room.set()
        self.finished = isinstance(numbered.event, Answer | Failed)
        return numbered

    async def last(self) -> Answer:
        """The last event, without those before it; raises MeshError."""
        self.position = sys.maxsize
        self._underway.room.set()
        await self._underway.over.wait()
        last = self._underway.events[-1].event
        if isinstance(last, Answer):
            return last
        raise self._underway.failure or TypeError(last)

    def stop(self, why: MeshError | None = None) -> None:
        """End the answer where it is, with the answer so far or with an error, for all who read it."""
        self._underway.stop(why)

    async def _first(self) -> None:
        """Wait until there is more to send than that the work has begun."""
        self._held = False
        with suppress(TimeoutError):
            async with asyncio.timeout(self._underway.pace.hold_s):
                await self._underway.worth_sending.wait()
        self.finished = self._underway.failure is not None
