"""Work that is done at once and fails as one."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

_Result = TypeVar("_Result")


async def together(work: Iterable[Callable[[], Awaitable[_Result]]], limit: int) -> list[_Result]:
    """The results of all, in order, of which `limit` run at once; the first failure ends the others and is raised."""
    slots = asyncio.Semaphore(limit)

    async def run(begin: Callable[[], Awaitable[_Result]]) -> _Result:
        async with slots:
            return await begin()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(begin)) for begin in work]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
