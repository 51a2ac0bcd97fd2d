"""The keys in Redis, and the locks that all replicas share there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockError, RedisError

from meshkit.errors import ResourceExhausted
from meshkit.redis_store import store_errors

_LOCK_POLL_S = 0.05


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
