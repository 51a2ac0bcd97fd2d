"""Work that outlives the process which does it: taken, held with a heartbeat, done or left for another to take."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from meshkit.errors import MeshError

logger = logging.getLogger(__name__)


class Lane(StrEnum):
    """Work by its precedence: what somebody waits for, and what jobs bring."""

    UPLOADS = "uploads"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A document to take in, or a job to run where `document` is ""; `subject` gave it."""

    tenant: str
    subject: str
    collection: str = ""
    document: str = ""
    generation: str = ""
    job: str = ""

    @property
    def lane(self) -> Lane:
        """Which lane it goes by."""
        return Lane.BULK if self.job else Lane.UPLOADS

    @property
    def name(self) -> str:
        """The document's name."""
        return f"collections/{self.collection}/documents/{self.document}"


@dataclass(frozen=True, slots=True)
class Taken:
    """An item that was taken, by the stream and the id under which its queue knows it."""

    stream: str
    id: str
    item: WorkItem


class WorkQueue(Protocol):
    """Gives each item to one taker at a time, and again where a taker's heartbeat stops: at least once in all."""

    async def take(self) -> Taken | None:
        """The next item, or None after a short wait; one whose taker has gone comes first."""

    async def hold(self, taken: Taken) -> None:
        """The heartbeat: say that the taker is alive."""

    async def done(self, taken: Taken) -> None:
        """Forget the item."""

    async def release(self, taken: Taken) -> None:
        """Give the item back: another taker may have it at once."""

    async def size(self) -> int:
        """Items that wait or are worked on, of all tenants."""


class Locks(Protocol):
    """Locks by name that all replicas share."""

    def hold(self, tenant: str, name: str, wait_s: float) -> AbstractAsyncContextManager[None]:
        """Hold a lock for the body, kept alive meanwhile; raises OVERLOADED where it is not free within `wait_s`."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How workers go about it, in seconds."""

    heartbeat_s: float
    retry_backoff_s: float
    retry_backoff_max_s: float


Handle = Callable[[WorkItem], Awaitable[None]]


@asynccontextmanager
async def open_workers(queue: WorkQueue, handle: Handle, count: int, pace: Pace) -> AsyncIterator[None]:
    """`count` tasks that handle the queue's items while the body runs; what is unfinished then is given back."""
    taking = asyncio.Lock()
    tasks = [asyncio.create_task(_work(queue, taking, handle, pace)) for _ in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _work(queue: WorkQueue, taking: asyncio.Lock, handle: Handle, pace: Pace) -> None:
    failures = 0
    while True:
        try:
            # One waits at the queue, the others for their turn to.
            async with taking:
                taken = await queue.take()
            if taken is not None:
                await _handle(queue, taken, handle, pace.heartbeat_s)
            failures = 0
        except Exception as error:
            # The item is still queued: whatever went wrong, it is tried again.
            failures += 1
            expected = isinstance(error, MeshError)
            logger.warning("work failed, will retry: %s", error, exc_info=None if expected else error)
            await asyncio.sleep(backoff_s(failures, pace))


async def _handle(queue: WorkQueue, taken: Taken, handle: Handle, heartbeat_s: float) -> None:
    beating = asyncio.create_task(_beat(queue, taken, heartbeat_s))
    try:
        await handle(taken.item)
    except BaseException:
        with suppress(MeshError):
            await queue.release(taken)
        raise
    else:
        await queue.done(taken)
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def _beat(queue: WorkQueue, taken: Taken, heartbeat_s: float) -> None:
    while True:
        await asyncio.sleep(heartbeat_s)
        with suppress(MeshError):
            await queue.hold(taken)


def backoff_s(failures: int, pace: Pace) -> float:
    """Seconds to wait after so many failures: doubling, up to the most."""
    return min(pace.retry_backoff_s * 2.0 ** min(failures - 1, 30), pace.retry_backoff_max_s)
