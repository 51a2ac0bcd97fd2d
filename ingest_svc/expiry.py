"""What nobody came back for is forgotten, again and again."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from meshkit.errors import MeshError

logger = logging.getLogger(__name__)

# Forgets what nobody touched since a Unix time in seconds; raises STORE_UNAVAILABLE.
Expire = Callable[[float], Awaitable[None]]


@asynccontextmanager
async def open_expiry(expire: Expire, ttl_s: float, interval_s: float) -> AsyncIterator[None]:
    """Forget what was not touched for `ttl_s` while the body runs, looking every `interval_s`."""
    expiring = asyncio.create_task(_expire(expire, ttl_s, interval_s))
    try:
        yield
    finally:
        expiring.cancel()
        await asyncio.gather(expiring, return_exceptions=True)


async def _expire(expire: Expire, ttl_s: float, interval_s: float) -> None:
    while True:
        try:
            await expire(time.time() - ttl_s)
        except MeshError as error:
            logger.warning("uploads could not be expired: %s", error)
        await asyncio.sleep(interval_s)
