"""Whose turn it is to write: writes of one key go one after another, and one that has begun ends."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from weakref import WeakValueDictionary

_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)


class Turns:
    """Orders writes by key and keeps those that have begun; `open_turns` makes and closes it."""

    def __init__(self) -> None:
        # A lock lives as long as a write holds it or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._running: set[asyncio.Task[Any]] = set()

    async def take(self, key: str, work: Callable[[], Awaitable[_Result]]) -> _Result:
        """Do the work when it is its turn; a caller who leaves before that takes it back, later it ends alone."""
        begun = asyncio.Event()
        task = asyncio.create_task(self._take(key, begun, work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not begun.is_set():
                task.cancel()
            task.add_done_callback(_tell_failure)
            raise

    def later(self, key: str, work: Callable[[], Awaitable[Any]]) -> None:
        """Do the work when it is its turn, for nobody: a failure is logged."""
        task = asyncio.create_task(self._take(key, asyncio.Event(), work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(_tell_failure)

    async def _take(self, key: str, begun: asyncio.Event, work: Callable[[], Awaitable[_Result]]) -> _Result:
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            begun.set()
            return await work()

    async def finish(self) -> None:
        """Wait for the writes that are running."""
        if self._running:
            await asyncio.wait(self._running)


def _tell_failure(task: asyncio.Task[Any]) -> None:
    """Log what nobody waits to hear."""
    if not task.cancelled() and (error := task.exception()):
        logger.warning("a write that nobody waits for failed: %s", error)


@asynccontextmanager
async def open_turns() -> AsyncIterator[Turns]:
    """Turns whose last write has ended when the body has."""
    turns = Turns()
    try:
        yield turns
    finally:
        await turns.finish()
