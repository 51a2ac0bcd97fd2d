"""Progress over Redis's publish and subscribe."""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ingest_svc.progress import Progress
from ingest_svc.redis_locks import shared_key

logger = logging.getLogger(__name__)

CHANNEL = shared_key("progress")
_POLL_S = 1.0


class QueueWatch:
    """The progress that came since it was opened; closed by `watch`. See Watch."""

    def __init__(self, max_waiting: int) -> None:
        self._waiting: deque[Progress] = deque(maxlen=max_waiting)
        self._arrived = asyncio.Event()

    async def next(self, timeout_s: float) -> Progress | None:
        """The next progress, or None when the time has passed."""
        if not self._waiting:
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._arrived.wait()
        return self._waiting.popleft() if self._waiting else None

    def put(self, progress: Progress) -> None:
        """Add progress, in place of the oldest where too much waits."""
        self._waiting.append(progress)
        self._arrived.set()


class RedisProgress:
    """One subscription for all watchers of this process; opened and closed by `open_redis_progress`.

    `_watches` is changed by `watch` and read by the one task that listens.
    """

    def __init__(self, redis: Redis, max_waiting: int) -> None:
        self._redis = redis
        self._max_waiting = max_waiting
        self._watches: defaultdict[str, set[QueueWatch]] = defaultdict(set)

    async def publish(self, tenant: str, progress: Progress) -> None:
        """Tell the watchers; what cannot be told is lost, since they look at the records too."""
        with suppress(RedisError, OSError):
            await self._redis.publish(CHANNEL, message(tenant, progress))

    @asynccontextmanager
    async def watch(self, tenant: str, name: str) -> AsyncIterator[QueueWatch]:
        """Watch a document or a job by its name."""
        topic, watch = f"{tenant}/{name}", QueueWatch(self._max_waiting)
        self._watches[topic].add(watch)
        try:
            yield watch
        finally:
            self._watches[topic].discard(watch)
            if not self._watches[topic]:
                del self._watches[topic]

    async def listen(self, backoff_s: float) -> None:
        """Pass on what is published, for ever; begins again `backoff_s` after Redis went away."""
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(CHANNEL)
                    while True:
                        told = await subscription.get_message(timeout=_POLL_S)
                        if told is not None:
                            self._pass_on(told["data"])
            except (RedisError, OSError) as error:
                logger.info("progress is not heard, will retry: %s", type(error).__name__)
                await asyncio.sleep(backoff_s)

    def _pass_on(self, told: str) -> None:
        tenant, _, text = told.partition(" ")
        if not any(topic.startswith(f"{tenant}/") for topic in self._watches):
            return
        progress = Progress.model_validate_json(text)
        names = [progress.document, *([f"jobs/{progress.job}"] if progress.job else [])]
        for name in names:
            for watch in self._watches.get(f"{tenant}/{name}", ()):
                watch.put(progress)


def message(tenant: str, progress: Progress) -> str:
    """What is published of it."""
    return f"{tenant} {progress.model_dump_json()}"


@asynccontextmanager
async def open_redis_progress(redis: Redis, max_waiting: int, backoff_s: float) -> AsyncIterator[RedisProgress]:
    """The progress of all replicas while the body runs."""
    bus = RedisProgress(redis, max_waiting)
    listening = asyncio.create_task(bus.listen(backoff_s))
    try:
        yield bus
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
