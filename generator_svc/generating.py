"""The generations under way: admitted by sequences, found by id, freed the moment their reader leaves."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass

from generator_svc.engine import Delta, Engine, Request, Work
from meshkit.admission import Permits
from meshkit.errors import Aborted, AlreadyExists, invalid

_RATE_WINDOW_S = 10.0


@dataclass(frozen=True, slots=True)
class Load:
    """Sequences that run and wait, the most that run at once, and what is known of tokens and cache."""

    running: int
    waiting: int
    limit: int
    outstanding_tokens: int
    tokens_per_second: float
    cache_use: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How many sequences run at once, how many wait, and when who is refused may come back."""

    max_running: int
    max_waiting: int
    retry_after_s: float


class Generator:
    """Runs requests on one engine, which whoever opened it closes; lives on one event loop."""

    def __init__(self, engine: Engine, limits: Limits, freed: Callable[[float], None]) -> None:
        """`freed` is told how many seconds passed from a reader's leaving to its slot being free."""
        self.engine = engine
        self._limits = limits
        self._permits = Permits(limits.max_running + limits.max_waiting, limits.retry_after_s)
        self._generations: dict[str, _Generation] = {}
        self._rate = _Rate()
        self._freed = freed

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The deltas of one request, whose slot is free when the generator is closed.

        Raises ResourceExhausted where too much waits already, AlreadyExists where the id is in use, Aborted after
        `abort`, and what the engine raises.
        """
        async with AsyncExitStack() as held:
            for _ in range(self._sequences(request)):
                await held.enter_async_context(self._permits.take())
            generation = held.enter_context(self._registered(await self.engine.prepare(request)))
            async with aclosing(generation.deltas()) as deltas:
                async for delta in deltas:
                    self._rate.add(delta.tokens)
                    yield delta

    async def abort(self, key: str) -> bool:
        """End the generation of that request's key, whose reader gets Aborted; False where there is none."""
        generation = self._generations.get(key)
        if generation is None:
            return False
        await generation.abort()
        return True

    def load(self) -> Load:
        """The work at hand."""
        running = min(self._permits.running, self._limits.max_running)
        return Load(
            running=running,
            waiting=self._permits.running - running,
            limit=self._limits.max_running,
            outstanding_tokens=sum(generation.outstanding for generation in self._generations.values()),
            tokens_per_second=self._rate.per_second(),
            cache_use=self.engine.cache_use,
        )

    def _sequences(self, request: Request) -> int:
        if request.n > self._permits.limit:
            raise invalid("n", f"this server takes {self._permits.limit} sequences at once")
        return request.n

    @contextmanager
    def _registered(self, work: Work) -> Iterator["_Generation"]:
        request = work.request
        if request.key in self._generations:
            message = "a generation of this id is running"
            raise AlreadyExists("GENERATION_EXISTS", message, metadata={"generation": request.id})
        generation = _Generation(self.engine, work, self._freed)
        self._generations[request.key] = generation
        try:
            yield generation
        finally:
            del self._generations[request.key]


class _Generation:
    """One request on the engine: one task reads it, any task may abort it."""

    def __init__(self, engine: Engine, work: Work, freed: Callable[[float], None]) -> None:
        self.outstanding = work.max_tokens * work.request.n
        self._stream = engine.generate(work)
        self._freed = freed
        # How an abort finds the reader: waiting for the engine, which the abort then ends, or busy with a delta.
        self._waiting: asyncio.Timeout | None = None
        self._aborted = False
        self._closing = asyncio.Lock()

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        try:
            while delta := await self._next():
                self.outstanding = max(self.outstanding - delta.tokens, 0)
                yield delta
        except (asyncio.CancelledError, GeneratorExit):
            left_s = time.monotonic()
            await self._close()
            self._freed(time.monotonic() - left_s)
            raise
        finally:
            await self._close()

    async def abort(self) -> None:
        self._aborted = True
        if self._waiting:
            self._waiting.reschedule(asyncio.get_running_loop().time())
        else:
            await self._close()

    async def _next(self) -> Delta | None:
        """The next delta, None after the last; raises Aborted once `abort` was called."""
        try:
            async with asyncio.timeout(None) as self._waiting:
                delta = await anext(self._stream, None)
        except TimeoutError:
            if not self._aborted:
                raise
            delta = None
        finally:
            self._waiting = None
        if self._aborted:
            raise Aborted("GENERATION_ABORTED", "the generation was ended by Abort")
        return delta

    async def _close(self) -> None:
        # A generator cannot be closed by two tasks at once.
        async with self._closing:
            await self._stream.aclose()


class _Rate:
    """Tokens a second over the last seconds."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._made: deque[tuple[float, int]] = deque()

    def add(self, tokens: int) -> None:
        now_s = time.monotonic()
        self._made.append((now_s, tokens))
        self._forget(now_s)

    def per_second(self) -> float:
        now_s = time.monotonic()
        self._forget(now_s)
        window_s = min(_RATE_WINDOW_S, now_s - self._began_s)
        return sum(tokens for _, tokens in self._made) / window_s if window_s else 0.0

    def _forget(self, now_s: float) -> None:
        while self._made and self._made[0][0] < now_s - _RATE_WINDOW_S:
            self._made.popleft()
