"""Vectors in Redis."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from embedder_svc.breaker import Breaker, BreakerState
from embedder_svc.embedding_cache import CacheCounts, CacheLimits
from meshkit.redis_store import open_redis

logger = logging.getLogger(__name__)

# Look-ups get the whole time limit again for each so many keys, whose values take a while to read.
_KEYS_PER_LIMIT = 128
# Entries of one write: few enough not to hold up the event loop, which packs them.
_WRITE_ENTRIES = 64
# Between writes of less: a Redis that syncs each one to disk answers no look-up meanwhile.
_WRITE_PAUSE_S = 0.1


class RedisEmbeddingCache:
    """An EmbeddingCache in Redis; `open_redis_embedding_cache` makes it, runs its writer and closes both."""

    def __init__(self, redis: Redis, limits: CacheLimits) -> None:
        self.counts = CacheCounts()
        self._redis = redis
        self._limits = limits
        self._breaker = Breaker(limits.max_failures, limits.open_s)
        self._pending: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self._pending_bytes = 0

    @property
    def state(self) -> BreakerState:
        """Whether Redis is asked."""
        return self._breaker.state

    async def get(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        limit_s = self._limits.read_timeout_s * (1 + len(keys) // _KEYS_PER_LIMIT)
        found = await self._asked(lambda: self._redis.mget(keys), limit_s)
        values = [None] * len(keys) if found is None else cast(list[bytes | None], found)
        hits = sum(value is not None for value in values)
        self.counts.hits += hits
        self.counts.misses += len(keys) - hits
        return values

    def put(self, values: Mapping[str, bytes]) -> None:
        for key, value in values.items():
            if self._pending_bytes + len(value) > self._limits.max_pending_bytes:
                self.counts.dropped += 1
            else:
                self._pending_bytes += len(value)
                self._pending.put_nowait((key, value))

    async def write(self) -> None:
        """Write what waits, for ever."""
        # A connection is made here, for the first look-up to find one.
        await self._asked(self._redis.ping, self._limits.write_timeout_s)
        while True:
            entries = [await self._pending.get()]
            while len(entries) < _WRITE_ENTRIES and not self._pending.empty():
                entries.append(self._pending.get_nowait())
            await self._write(entries)
            self._pending_bytes -= sum(len(value) for _, value in entries)
            for _ in entries:
                self._pending.task_done()
            if len(entries) < _WRITE_ENTRIES:
                await asyncio.sleep(_WRITE_PAUSE_S)

    async def flush(self) -> None:
        """Return when nothing waits, or when a write's time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.write_timeout_s):
                await self._pending.join()

    async def _write(self, entries: Sequence[tuple[str, bytes]]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for key, value in entries:
            pipeline.set(key, value, ex=self._limits.ttl_s)
        if await self._asked(pipeline.execute, self._limits.write_timeout_s) is None:
            self.counts.dropped += len(entries)

    async def _asked(self, ask: Callable[[], Awaitable[Any]], limit_s: float) -> Any:
        """Redis's answer; None where the breaker is open, or nothing good comes in time."""
        if not self._breaker.allows():
            return None
        try:
            async with asyncio.timeout(limit_s):
                answer = await ask()
        except ResponseError as error:
            # Redis is there and refuses, a write for want of memory for instance: look-ups may go on.
            self._note(error)
            self._breaker.succeeded()
            return None
        except (RedisError, OSError) as error:
            self._note(error)
            self._breaker.failed()
            return None
        self._breaker.succeeded()
        return answer

    def _note(self, error: Exception) -> None:
        self.counts.errors += 1
        if self._breaker.state is BreakerState.CLOSED:
            # What Redis says may hold a key, so only its kind is told.
            logger.warning("the embedding cache does without Redis: %s", type(error).__name__)


@asynccontextmanager
async def open_redis_embedding_cache(url: str, limits: CacheLimits) -> AsyncIterator[RedisEmbeddingCache]:
    """A cache that connects when it is first used; what waits to be written at its end is written in a write's time."""
    async with open_redis(url, limits.write_timeout_s, limits.max_connections, decode=False) as redis:
        cache = RedisEmbeddingCache(redis, limits)
        writer = asyncio.create_task(cache.write())
        try:
            yield cache
            await cache.flush()
        finally:
            writer.cancel()
            await asyncio.wait([writer])
