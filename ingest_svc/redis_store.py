"""The connection to Redis, and the locks that all replicas share there."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.lock import Lock
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import LockError, RedisError

from meshkit.errors import MeshError, ResourceExhausted, Unavailable, map_exceptions

_LOCK_POLL_S = 0.05


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
    return Unavailable("STORE_UNAVAILABLE", "the store of collections, documents and jobs does not answer")


def tenant_key(tenant: str, *parts: str) -> str:
    """The key of something that belongs to a tenant."""
    return ":".join(("ragmesh", tenant, "ingest", *parts))


def shared_key(*parts: str) -> str:
    """The key of something that all tenants share; no tenant has a name with an underscore."""
    return ":".join(("ragmesh", "_ingest", *parts))


class RedisLocks:
    """Locks that end by themselves `ttl_s` after their holder died; needs no closing."""

    def __init__(self, redis: Redis, ttl_s: float) -> None:
        self._redis = redis
        self._ttl_s = ttl_s

    @asynccontextmanager
    async def hold(self, tenant: str, name: str, wait_s: float) -> AsyncIterator[None]:
        """Hold a lock for the body, kept alive meanwhile; raises OVERLOADED where it is not free in time."""
        key = tenant_key(tenant, "lock", name)
        lock = self._redis.lock(key, timeout=self._ttl_s, sleep=_LOCK_POLL_S, blocking_timeout=wait_s)
        with store_errors():
            if not await lock.acquire():
                raise ResourceExhausted(
                    "OVERLOADED", f"{name} is being worked on", metadata={"lock": name}, retry_after_s=wait_s
                )
        keeping = asyncio.create_task(self._keep(lock))
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            # Who cannot give it back leaves it to its end.
            with suppress(RedisError, OSError):
                await lock.release()

    async def _keep(self, lock: Lock) -> None:
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            try:
                await lock.reacquire()
            except LockError:
                return
            except (RedisError, OSError):
                continue
