"""An engine that is there again after it has died: another is opened in its place."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

from generator_svc.engine import Card, Chat, Delta, Engine, Prompt, Request, Work
from meshkit.errors import Unavailable

OpenEngine: TypeAlias = Callable[[], AbstractAsyncContextManager[Engine]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often an engine is checked, how long a dead one may take to close, and the waits before it is replaced."""

    backoff_s: float
    backoff_max_s: float
    close_timeout_s: float
    check_interval_s: float = 0.1

    def waits_s(self) -> Iterator[float]:
        """The wait before each attempt: twice the last one up to the most, less up to half of it by chance."""
        longest_s = self.backoff_s
        while True:
            # Replicas whose engines died together shall not load their models together.
            yield random.uniform(longest_s / 2, longest_s)  # noqa: S311
            longest_s = min(2 * longest_s, self.backoff_max_s)


@asynccontextmanager
async def open_reviving_engine(
    open_engine: OpenEngine, restarts: Restarts, restarted: Callable[[], None]
) -> AsyncIterator["RevivingEngine"]:
    """An engine that is opened now, and anew whenever it dies, for as long as the body lasts.

    Raises what the first opening raises; later ones are tried for ever. `restarted` is called after each.
    """
    lives = _Lives(open_engine, restarts.close_timeout_s)
    reviving = RevivingEngine(await lives.begin())
    keeping = asyncio.create_task(_keep_alive(reviving, lives, restarts, restarted))
    try:
        yield reviving
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        await lives.end()


class RevivingEngine:
    """The engine of now, or none from its death until another is open; made by `open_reviving_engine`.

    Its streams are the engine's own: nothing is added to the way of a token. What an engine has prepared it alone may
    run: with its successor the work fails as all work does in between, with Unavailable and when to come back.
    """

    def __init__(self, engine: Engine) -> None:
        self._card = engine.card
        self._engine: Engine | None = engine
        self._back_s = 0.0

    @property
    def card(self) -> Card:
        """That of the last engine while there is none."""
        return self._card

    @property
    def cache_use(self) -> float:
        """0 while there is no engine."""
        return self._engine.cache_use if self._engine else 0.0

    async def prepare(self, request: Request) -> Work:
        """As the engine does it."""
        engine = await self._alive()
        work = await engine.prepare(request)
        return replace(work, payload=_Prepared(engine, work))

    def generate(self, work: Work) -> AsyncGenerator[Delta, None]:
        """The stream of the engine that prepared the work; one that fails where that is no longer there."""
        prepared: _Prepared = work.payload
        if prepared.engine is not self._engine:
            return _failing(self._unavailable())
        return prepared.engine.generate(prepared.work)

    async def count_tokens(self, given: Chat | Prompt) -> int:
        """As the engine does it."""
        engine = await self._alive()
        return await engine.count_tokens(given)

    async def check(self) -> None:
        """Raises Unavailable from the engine's death until another is open."""
        await self._alive()

    def lose(self, back_in_s: float) -> None:
        """The engine has died; another is expected in so many seconds."""
        self._engine = None
        self._back_s = time.monotonic() + back_in_s

    def take(self, engine: Engine) -> None:
        """Another engine is open."""
        self._engine, self._card = engine, engine.card

    async def _alive(self) -> Engine:
        """The engine of now, also asked itself: its death may not have been noticed yet."""
        engine = self._engine
        if engine is None:
            raise self._unavailable()
        try:
            await engine.check()
        except Unavailable as error:
            raise self._unavailable() from error
        return engine

    def _unavailable(self) -> Unavailable:
        back_in_s = max(self._back_s - time.monotonic(), 1.0)
        return Unavailable("ENGINE_UNAVAILABLE", "the engine died and is started again", retry_after_s=back_in_s)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What the engine made of a request."""

    engine: Engine
    work: Work


async def _failing(error: Unavailable) -> AsyncGenerator[Delta, None]:
    raise error
    yield  # A generator, as a stream is.


class _Lives:
    """Opens an engine and closes it; keeps hold of those that are slow to close."""

    def __init__(self, open_engine: OpenEngine, close_timeout_s: float) -> None:
        self._open_engine = open_engine
        self._close_timeout_s = close_timeout_s
        self._life = AsyncExitStack()
        self._closing: set[asyncio.Task[None]] = set()

    async def begin(self) -> Engine:
        return await self._life.enter_async_context(self._open_engine())

    async def end(self) -> None:
        """Close the engine, if any; one that does not close in time goes on at it and holds nobody up."""
        closing = asyncio.create_task(_close(self._life.pop_all()))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        _, left = await asyncio.wait(self._closing, timeout=self._close_timeout_s)
        if left:
            logger.warning("%d engines did not close in time", len(left))


async def _close(life: AsyncExitStack) -> None:
    try:
        await life.aclose()
    except Exception as error:
        logger.warning("the engine did not close well", exc_info=error)


async def _keep_alive(
    reviving: RevivingEngine, lives: _Lives, restarts: Restarts, restarted: Callable[[], None]
) -> None:
    """Open another engine whenever the last one has died."""
    waits_s, opening_s = restarts.waits_s(), 0.0
    while True:
        lived_s = await _until_dead(reviving, restarts.check_interval_s)
        if lived_s > restarts.backoff_max_s:
            waits_s = restarts.waits_s()
        reviving.lose(opening_s)
        await lives.end()
        engine = None
        while engine is None:
            wait_s = next(waits_s)
            reviving.lose(wait_s + opening_s)
            await asyncio.sleep(wait_s)
            began_s = time.monotonic()
            engine = await _opened(lives)
            opening_s = time.monotonic() - began_s
        reviving.take(engine)
        restarted()
        logger.info("the engine was started again in %.1f s", opening_s)


async def _until_dead(reviving: RevivingEngine, interval_s: float) -> float:
    """Return when a check fails, with the seconds for which none did."""
    began_s = time.monotonic()
    while True:
        try:
            await reviving.check()
        except Exception:
            logger.exception("the engine died")
            return time.monotonic() - began_s
        await asyncio.sleep(interval_s)


async def _opened(lives: _Lives) -> Engine | None:
    try:
        return await lives.begin()
    except Exception as error:
        logger.warning("the engine does not start", exc_info=error)
        return None
