"""The connection to Redis, where the gateway keeps what outlives a call."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from meshkit.errors import MeshError, Unavailable, map_exceptions


@asynccontextmanager
async def open_redis(url: str, timeout_s: float, max_connections: int) -> AsyncIterator[Redis]:
    """A client that connects when it is first used, each operation within `timeout_s`."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        decode_responses=True,
        # One retry, at once: a connection that Redis closed while idle. More would hold callers up.
        retry=Retry(NoBackoff(), 1),
    )
    async with Redis.from_pool(pool) as client:
        yield client


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn Redis's failures, and the network's, into Unavailable STORE_UNAVAILABLE."""
    with map_exceptions({RedisError: _unavailable, OSError: _unavailable}):
        yield


def _unavailable(_error: Exception) -> MeshError:
    return Unavailable("STORE_UNAVAILABLE", "the store of sessions and answers does not answer")
