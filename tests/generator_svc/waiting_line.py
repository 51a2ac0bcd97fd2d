"""An admission and who waits for it."""

import asyncio
from collections.abc import Iterator
from typing import Any

from generator_svc.admission import Admission, Limits, Place
from generator_svc.engine import Prompt, Request, Work
from meshkit.errors import ResourceExhausted


class Line:
    """An admission and who asked it for a place, each a task of its own; `started` has their names in that order."""

    def __init__(self, *, drain_s: float = 0.0, **limits: Any) -> None:
        numbers = {"max_running": 1, "max_waiting": 1000, **limits}
        self.admission = Admission(Limits(**numbers), lambda: drain_s)
        self.started: list[str] = []
        self.tasks: dict[str, asyncio.Task[Place]] = {}

    async def ask(self, name: str, owner: str = "acme", *, tokens: int = 10, n: int = 1, priority: int = 0) -> None:
        """Ask for a place, and let it be given or not."""
        request = Request(name, Prompt("Go"), owner=owner, n=n, priority=priority)
        work = Work(request, 0.0, prompt_tokens=tokens)
        self.tasks[name] = asyncio.create_task(self._take(name, work))
        await settle()

    async def end(self, name: str, unserved: int = 0) -> None:
        """Give its place back, and let those who come after it start."""
        self.admission.release(self.tasks[name].result(), unserved)
        await settle()

    async def order(self) -> list[str]:
        """Who starts from now on when those who run end one by one, the oldest first."""
        for name in self.running():
            await self.end(name)
        return self.started

    async def leave(self, name: str) -> None:
        self.tasks[name].cancel()
        await settle()

    def refusal(self, name: str) -> ResourceExhausted:
        error = self.tasks[name].exception()
        assert isinstance(error, ResourceExhausted)
        return error

    async def _take(self, name: str, work: Work) -> Place:
        place = await self.admission.take(work)
        self.started.append(name)
        return place

    def running(self) -> Iterator[str]:
        """Who has started, also those who do so meanwhile, in that order."""
        yield from self.started


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)
