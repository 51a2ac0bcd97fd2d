"""An engine whose pace the test sets."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from generator_svc.engine import Card, Chat, Delta, EngineKind, FinishReason, Prompt, Request, Usage, Work
from meshkit.errors import Unavailable


class PacedEngine:
    """Writes numbered words, one every `pause_s`.

    `running` are the keys of the streams that are not closed yet, `asked` the requests of all that began, in order.
    """

    def __init__(self, pause_s: float = 0.01, max_model_tokens: int = 1000) -> None:
        self.card = Card("paced", EngineKind.LANGUAGE_MODEL, "double", "A double.", max_model_tokens)
        self.cache_use = 0.25
        self.running: set[str] = set()
        self.asked: list[Request] = []
        self.alive = True
        self.pause_s = pause_s

    async def prepare(self, request: Request) -> Work:
        return Work(request, time.monotonic(), prompt_tokens=1, max_tokens=request.max_tokens)

    async def generate(self, work: Work) -> AsyncGenerator[Delta, None]:
        request = work.request
        self.running.add(request.key)
        self.asked.append(request)
        try:
            for number in range(request.max_tokens):
                await asyncio.sleep(self.pause_s)
                await self.check()
                last = number == request.max_tokens - 1
                yield Delta(
                    f"{number} ",
                    tokens=1,
                    finish=FinishReason.LENGTH if last else None,
                    usage=Usage(1, 0, number + 1) if last else None,
                )
        finally:
            self.running.discard(request.key)

    async def count_tokens(self, given: Chat | Prompt) -> int:
        return len(given.text.split()) if isinstance(given, Prompt) else 0

    async def check(self) -> None:
        if not self.alive:
            raise Unavailable("ENGINE_UNAVAILABLE", "the engine died")


async def until(happened: Callable[[], bool]) -> None:
    """Return when it has, or raise after five seconds."""
    async with asyncio.timeout(5):
        while not happened():
            await asyncio.sleep(0.001)
