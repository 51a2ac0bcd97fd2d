"""Work done side by side, of which none outlasts the step that began it."""

import asyncio
from collections.abc import Coroutine
from contextlib import nullcontext
from typing import Any, Self, TypeVar

from meshkit import deadline
from meshkit.deadline import Deadline

_T = TypeVar("_T")


class Race:
    """Tasks that are cancelled and over when the body of `async with` ends; `limit` is the deadline of their calls."""

    def __init__(self, limit: Deadline | None = None) -> None:
        self._limit = limit
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def begin(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Begin some work."""
        with deadline.using(self._limit) if self._limit else nullcontext():
            task = asyncio.create_task(work)
        self._tasks.append(task)
        return task
