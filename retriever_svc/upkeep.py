"""Keeping an index in order beside its calls."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

logger = logging.getLogger(__name__)


@asynccontextmanager
async def upkeep(work: Callable[[], Awaitable[None]], interval_s: float) -> AsyncIterator[None]:
    """Do the work again and again while the body runs, after `interval_s` seconds each; a failure is logged."""
    task = asyncio.create_task(_for_ever(work, interval_s))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _for_ever(work: Callable[[], Awaitable[None]], interval_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - whatever it was, the next round tries again
            logger.warning("the index is put in order later: %s: %s", type(error).__name__, error)
