"""Work on the items of a stream, some at once, answered in the stream's order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def in_order(
    items: AsyncIterator[Item], work: Callable[[Item], Coroutine[Any, Any, Result]], depth: int
) -> AsyncGenerator[Result, None]:
    """The results of `work` on each item, in order, each as soon as it and all before it are done.

    At most `depth` items are read and not yet taken, so a slow consumer slows the source.
    The first failure, of the source or of the work, ends the stream; whatever ends it cancels the rest.
    Close it (`contextlib.aclosing`) where it may be left early.
    """
    room = asyncio.Semaphore(depth)
    begun: asyncio.Queue[asyncio.Task[Result] | None] = asyncio.Queue()
    running: set[asyncio.Task[Result]] = set()

    async def read() -> None:
        try:
            await room.acquire()
            async for item in items:
                task = asyncio.create_task(work(item))
                running.add(task)
                begun.put_nowait(task)
                await room.acquire()
        finally:
            begun.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (task := await begun.get()) is not None:
            yield await task
            running.discard(task)
            room.release()
        await reader
    finally:
        await _cancelled(reader, *running)


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks and wait until they have ended; what they raise has lost its reader."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
