"""A lock that many may hold to read, or one to write."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager


class ReadersWriterLock:
    """Lets many read or one write; who waits to write goes before who comes to read."""

    def __init__(self) -> None:
        self._readers = 0
        self._writing = False
        self._writers_waiting = 0
        self._waiting: set[asyncio.Future[None]] = set()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Hold the lock beside other readers."""
        await self._until(lambda: not self._writing and not self._writers_waiting)
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            self._wake()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Hold the lock alone."""
        with self._waiting_to_write():
            await self._until(lambda: not self._writing and not self._readers)
        self._writing = True
        try:
            yield
        finally:
            self._writing = False
            self._wake()

    @contextmanager
    def _waiting_to_write(self) -> Iterator[None]:
        self._writers_waiting += 1
        try:
            yield
        except BaseException:
            self._wake()
            raise
        finally:
            self._writers_waiting -= 1

    async def _until(self, free: Callable[[], bool]) -> None:
        while not free():
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.add(waiting)
            try:
                await waiting
            finally:
                self._waiting.discard(waiting)

    def _wake(self) -> None:
        """Let all who wait look again, in the next round of the loop."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
