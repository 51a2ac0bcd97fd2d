"""The connection to Redis of a service that keeps its state there; who imports this needs the package redis."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from meshkit.errors import MeshError, Unavailable, map_exceptions


@asynccontextmanager
async def open_redis(url: str, timeout_s: float, max_connections: int, *, decode: bool = True) -> AsyncIterator[Redis]:
    """A client that connects when it is first used, each operation within `timeout_s`; values are str, or bytes."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        decode_responses=decode,
        # One retry, at once: a connection that Redis closed while idle. More would hold callers up.
        retry=Retry(NoBackoff(), 1),
    )
    pool.connection_class = type("CancellableConnection", (_Cancellable, pool.connection_class), {})
    async with Redis.from_pool(pool) as client:
        yield client


class _Cancellable(AbstractConnection):
    """A connection on which a cancellation is never lost; lives as redis-py's own do.

    redis-py bounds its writes by `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that comes when the
    write is done (python/cpython#86296): a caller who left, or a worker told to stop, would go on.
    """

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # noqa: FBT001, FBT002
        limit_s, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(limit_s):
                await super().send_packed_command(command, check_health)
        finally:
            self.socket_timeout = limit_s


async def answers(redis: Redis) -> bool:
    """Whether Redis answers; raises STORE_UNAVAILABLE where it does not."""
    with store_errors():
        return bool(await redis.ping())


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn Redis's failures, and the network's, into Unavailable STORE_UNAVAILABLE."""
    with map_exceptions({RedisError: _unavailable, OSError: _unavailable}):
        yield


def _unavailable(_error: Exception) -> MeshError:
    return Unavailable("STORE_UNAVAILABLE", "the store does not answer")
