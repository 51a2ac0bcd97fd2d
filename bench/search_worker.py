"""A subject in a process of its own, which measures itself: what others hold and do in memory is none of its cost."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from multiprocessing.connection import Connection

from bench.search_data import Query
from bench.search_load import Find, Load, Task, load

OpenFinder = Callable[[], AbstractAsyncContextManager[Find]]


class Worker:
    """The process; `open_worker` starts and ends it."""

    def __init__(self, pid: int, connection: Connection) -> None:
        self.pid = pid
        self._connection = connection

    async def load(self, task: Task) -> Load:
        """Have it ask all its queries."""
        self._connection.send(task)
        answer: Load = await asyncio.to_thread(self._connection.recv)
        return answer


@asynccontextmanager
async def open_worker(open_finder: OpenFinder, queries: Sequence[Query]) -> AsyncIterator[Worker]:
    """A process that has opened the subject and waits for tasks."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, open_finder, queries), daemon=True)
    process.start()
    # So that the other end's death is seen here.
    theirs.close()
    try:
        await asyncio.to_thread(ours.recv)
        yield Worker(process.pid or 0, ours)
    finally:
        ours.close()
        await asyncio.to_thread(process.join)


def _serve(connection: Connection, open_finder: OpenFinder, queries: Sequence[Query]) -> None:
    asyncio.run(_tasks(connection, open_finder, queries))


async def _tasks(connection: Connection, open_finder: OpenFinder, queries: Sequence[Query]) -> None:
    """Carry out the tasks that come, until the other end closes."""
    async with open_finder() as find:
        connection.send(None)
        while True:
            try:
                task = await asyncio.to_thread(connection.recv)
            except EOFError:
                return
            connection.send(await load(find, queries, task))
