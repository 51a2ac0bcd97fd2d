"""The generations under way: admitted, found by id, freed the moment their reader leaves."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import cast

from generator_svc.admission import Admission, Limits, Place
from generator_svc.engine import Delta, Engine, Request
from meshkit.errors import Aborted, AlreadyExists, invalid

_RATE_WINDOW_S = 10
_REST_S = 5.0
_MIN_RATE_WINDOW_S = 0.05


@dataclass(frozen=True, slots=True)
class Load:
    """The work at hand: sequences that run and wait, tokens that run, the most of each, and what is left to make.

    `running_tokens` are those that the running requests may come to; `token_limit` 0 is no bound.
    """

    running: int
    waiting: int
    limit: int
    running_tokens: int
    token_limit: int
    outstanding_tokens: int
    tokens_per_second: float
    cache_use: float


@dataclass(slots=True)
class Totals:
    """Tokens since the beginning; those of a prompt count when its generation has ended, read to the end."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class Generator:
    """Runs requests on one engine, which whoever opened it closes; lives on one event loop."""

    def __init__(
        self, engine: Engine, limits: Limits, freed: Callable[[float], None], waited: Callable[[float], None]
    ) -> None:
        """Is told in seconds: `freed` how long a slot took to be free when its reader left, `waited` each wait."""
        self.engine = engine
        self.admission = Admission(limits, self._drain_s)
        self.totals = Totals()
        self._generations: dict[str, _Generation] = {}
        self._rate = _Rate()
        self._freed = freed
        self._waited = waited

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The deltas of one request, whose slot is free when the generator is closed.

        Raises ResourceExhausted where too much waits already, AlreadyExists where the id is in use, Aborted after
        `abort`, and what the engine raises.
        """
        generation = self._register(request)
        try:
            async for delta in await self._begin(generation, request):
                generation.reader = None
                self._count(generation, delta)
                yield delta
                if generation.aborted:
                    raise _aborted()
                generation.reader = asyncio.current_task()
        except GeneratorExit:
            await self._free(generation)
            raise
        except asyncio.CancelledError:
            await self._free(generation)
            if generation.was_the_cause():
                raise _aborted() from None
            raise
        finally:
            del self._generations[request.key]
            await self._close(generation)

    async def abort(self, key: str) -> bool:
        """End the generation of that request's key, whose reader gets Aborted; False where there is none."""
        generation = self._generations.get(key)
        if generation is None:
            return False
        if not generation.aborted:
            generation.aborted = True
            if generation.reader:
                generation.reader.cancel()
            else:
                await self._free(generation)
        return True

    def load(self) -> Load:
        """The work at hand."""
        admission = self.admission
        return Load(
            running=admission.running,
            waiting=admission.waiting,
            limit=admission.limits.max_running,
            running_tokens=admission.running_tokens,
            token_limit=admission.limits.max_running_tokens,
            outstanding_tokens=self._outstanding(),
            tokens_per_second=self._rate.per_second(),
            cache_use=self.engine.cache_use,
        )

    def _register(self, request: Request) -> "_Generation":
        if request.n > self.admission.limits.max_running:
            raise invalid("n", f"this server makes {self.admission.limits.max_running} sequences at once")
        if request.key in self._generations:
            message = "a generation of this id is running"
            raise AlreadyExists("GENERATION_EXISTS", message, metadata={"generation": request.id})
        generation = self._generations[request.key] = _Generation()
        return generation

    async def _begin(self, generation: "_Generation", request: Request) -> AsyncGenerator[Delta, None]:
        self.admission.check(request.owner, request.n)
        work = await self.engine.prepare(request)
        generation.unmade = request.n * work.max_tokens
        asked_s = time.monotonic()
        generation.place = await self.admission.take(work)
        self._waited(time.monotonic() - asked_s)
        stream = generation.stream = self.engine.generate(work)
        return stream

    def _count(self, generation: "_Generation", delta: Delta) -> None:
        generation.unmade -= delta.tokens
        self.totals.completion_tokens += delta.tokens
        self._rate.reached(self.totals.completion_tokens)
        if delta.usage:
            self.totals.prompt_tokens += delta.usage.prompt_tokens
            self.totals.cached_tokens += delta.usage.cached_tokens

    async def _free(self, generation: "_Generation") -> None:
        """Close what a reader leaves before its end."""
        if generation.place:
            left_s = time.monotonic()
            await self._close(generation)
            self._freed(time.monotonic() - left_s)

    async def _close(self, generation: "_Generation") -> None:
        # Who takes the place closes the stream: two tasks cannot do so at once.
        place, generation.place = generation.place, None
        if place:
            try:
                if generation.stream:
                    await generation.stream.aclose()
            finally:
                self.admission.release(place, generation.outstanding)

    def _outstanding(self) -> int:
        return sum(generation.outstanding for generation in self._generations.values())

    def _drain_s(self) -> float:
        rate = self._rate.per_second()
        return self._outstanding() / rate if rate else 0.0


class _Generation:
    """One request under way: one task at a time reads it, any task may abort it."""

    def __init__(self) -> None:
        self.aborted = False
        # Held from when it is admitted until its stream is closed.
        self.place: Place | None = None
        self.stream: AsyncGenerator[Delta, None] | None = None
        # The task that waits for the next delta; None while it is busy with one.
        self.reader = asyncio.current_task()
        self.unmade = 0

    @property
    def outstanding(self) -> int:
        """The tokens yet to be made, at most; an engine that counts none makes them all the same."""
        return max(self.unmade, 0)

    def was_the_cause(self) -> bool:
        """Whether the cancellation of the current task was this generation's abort, and nothing else besides."""
        return self.aborted and cast("asyncio.Task[object]", asyncio.current_task()).uncancel() == 0


def _aborted() -> Aborted:
    return Aborted("GENERATION_ABORTED", "the generation was ended by Abort")


class _Rate:
    """How fast a total grows, over the last seconds since it rested; a mark a second, however fast."""

    def __init__(self) -> None:
        self._total = 0
        self._marks: deque[tuple[float, int]] = deque(maxlen=_RATE_WINDOW_S)

    def reached(self, total: int) -> None:
        now_s = time.monotonic()
        idle_s = now_s - self._marks[-1][0] if self._marks else _RATE_WINDOW_S
        if idle_s >= 1.0:
            if idle_s >= _REST_S:
                self._marks.clear()
            self._marks.append((now_s, self._total))
        self._total = total

    def per_second(self) -> float:
        now_s = time.monotonic()
        recent = (mark for mark in self._marks if now_s - mark[0] <= _RATE_WINDOW_S)
        began_s, total = next(recent, (now_s, self._total))
        return (self._total - total) / max(now_s - began_s, _MIN_RATE_WINDOW_S)
