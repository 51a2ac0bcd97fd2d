"""Writes down what happens to the answers of this process, off their way, and saves those that could not be saved."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from pydantic_core import to_json, to_jsonable_python

from gateway.course import Course
from gateway.journal import Background, Journal, Opening, Part
from gateway.relaying import Underway
from meshkit.errors import Unavailable

logger = logging.getLogger(__name__)

# Parts that are written in one go: the loop has other work between two of them.
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Habits:
    """How journals are written: how often, how long the process counts as alive, how long a store is waited for."""

    flush_s: float
    alive_s: float
    patience_s: float


class Journaling:
    """Writes the journals of this process's answers: every `flush_s`, what is new of all of them at once.

    One task writes; `_open` changes there, and by `begin`. `open_journaling` opens and closes it.
    """

    def __init__(self, journal: Journal, habits: Habits) -> None:
        self.producer = uuid.uuid4().hex
        self._journal = journal
        self._habits = habits
        self._open: list[_Pages] = []
        self._work = asyncio.Event()
        self._haste = asyncio.Event()
        self._alive_until_s = 0.0
        self._failing = False

    def begin(self, underway: Underway, written: Callable[[Underway], None], *, at_once: bool) -> None:
        """Write the answer down from now on; `written` is called when its end is, or when the store was away too long.

        `at_once` has it begun now rather than with the others.
        """
        self._open.append(_Pages(underway, self.producer, written))
        self._work.set()
        if at_once:
            self._haste.set()

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._work.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._habits.flush_s):
                    await self._haste.wait()
            self._haste.clear()
            await self.flush()
            if not self._open:
                self._work.clear()

    async def flush(self) -> None:
        """Write what is new."""
        try:
            await self._stay_alive()
            for pages in _batches(self._open):
                parts = [page.part() for page in pages]
                await self._journal.add([part for part in parts if part])
                for page, part in zip(pages, parts, strict=True):
                    page.wrote(part)
                    await page.keep()
        except Unavailable as error:
            if not self._failing:
                logger.warning("answers are not written down: %r", error)
            self._failing = True
        except Exception:
            # One answer that cannot be written ends the writing of no other: it waits until it is given up.
            if not self._failing:
                logger.exception("answers cannot be written down")
            self._failing = True
        else:
            self._failing = False
        self._close_ended()

    async def _stay_alive(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._open and now_s > self._alive_until_s - self._habits.alive_s / 2:
            await self._journal.live(self.producer, self._habits.alive_s)
            self._alive_until_s = now_s + self._habits.alive_s

    def _close_ended(self) -> None:
        now_s = asyncio.get_running_loop().time()
        ended = [page for page in self._open if page.done(now_s, self._habits.patience_s)]
        if ended:
            self._open = [page for page in self._open if page not in ended]
            for page in ended:
                page.close()


class _Pages:
    """How far an answer is written down."""

    def __init__(self, underway: Underway, producer: str, written: Callable[[Underway], None]) -> None:
        self._underway = underway
        self._producer = producer
        self._written = written
        self._begun = False
        self._count = 0
        self._waiting_since_s = 0.0

    def part(self) -> Part | None:
        """What is new, if anything."""
        course, events = self._underway.course, tuple(self._underway.events[self._count :])
        if self._begun and not events:
            return None
        return Part(
            course.owner,
            course.answer.id,
            events,
            None if self._begun else opening(course, self._producer),
            background(course) if self._underway.ended else None,
        )

    def wrote(self, part: Part | None) -> None:
        """The part is in the journal."""
        if part:
            self._begun = True
            self._count += len(part.events)

    async def keep(self) -> None:
        """Save the answer where the store was away at its end; raises Unavailable."""
        if self._underway.ended:
            await self._underway.course.keeping.again()

    def done(self, now_s: float, patience_s: float) -> bool:
        """Whether the end is written and the answer saved, or they have waited for the store too long."""
        underway = self._underway
        if not underway.ended:
            return False
        self._waiting_since_s = self._waiting_since_s or now_s
        written = self._count == len(underway.events) and not underway.course.keeping.owed
        return written or now_s - self._waiting_since_s > patience_s

    def close(self) -> None:
        self._written(self._underway)


def opening(course: Course, producer: str) -> Opening:
    """How the course's answer begins."""
    return Opening(course.question, course.answer, course.keeping.create_time, producer)


def background(course: Course) -> Background:
    """What stands behind the course's answer so far."""
    prompt = to_json(course.prompt).decode() if course.prompt else ""
    return Background(to_jsonable_python(course.plan), prompt, course.history)


def _batches(pages: Sequence[_Pages]) -> Iterator[Sequence[_Pages]]:
    return (pages[begin : begin + _BATCH] for begin in range(0, len(pages), _BATCH))


@asynccontextmanager
async def open_journaling(journal: Journal, habits: Habits) -> AsyncIterator[Journaling]:
    """Writes until the body ends, and then the rest."""
    journaling = Journaling(journal, habits)
    writing = asyncio.create_task(journaling.run())
    try:
        yield journaling
    finally:
        writing.cancel()
        await asyncio.wait({writing})
        await journaling.flush()
