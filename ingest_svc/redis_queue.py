"""A queue of work in a Redis stream with a consumer group."""

import time
import uuid
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ingest_svc.work import Taken, WorkItem
from meshkit.redis_store import store_errors

_GROUP = "workers"


class RedisQueue:
    """Takes items from one stream as one consumer; needs no closing. See WorkQueue.

    An item that was idle for `claim_idle_s` (its taker's heartbeat stopped) is given out again. `_claimed_s` is when
    this consumer last looked for such items; only `take` changes it.
    """

    def __init__(self, redis: Redis, stream: str, *, claim_idle_s: float, block_s: float) -> None:
        self._redis = redis
        self._stream = stream
        self._consumer = uuid.uuid4().hex
        self._claim_idle_ms = round(claim_idle_s * 1000)
        self._claim_interval_s = claim_idle_s / 2
        self._block_ms = round(block_s * 1000)
        self._claimed_s = float("-inf")

    async def take(self) -> Taken | None:
        with store_errors():
            try:
                return await self._claim() or await self._read()
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                await self._make_group()
                return None

    async def hold(self, taken: Taken) -> None:
        await self._set_idle(taken, 0)

    async def release(self, taken: Taken) -> None:
        await self._set_idle(taken, self._claim_idle_ms)

    async def done(self, taken: Taken) -> None:
        with store_errors():
            async with self._redis.pipeline() as pipeline:
                pipeline.xack(self._stream, _GROUP, taken.id)
                pipeline.xdel(self._stream, taken.id)
                await pipeline.execute()

    async def _claim(self) -> Taken | None:
        """An item whose taker has gone, looked for at the start and now and then."""
        now_s = time.monotonic()
        if now_s - self._claimed_s < self._claim_interval_s:
            return None
        found = await self._redis.xautoclaim(
            self._stream, _GROUP, self._consumer, min_idle_time=self._claim_idle_ms, count=1
        )
        entries = found[1]
        if not entries:
            # Nothing is left behind: look again after the interval, else at the next take.
            self._claimed_s = now_s
            return None
        return _taken(entries)

    async def _read(self) -> Taken | None:
        found: Any = await self._redis.xreadgroup(
            _GROUP, self._consumer, {self._stream: ">"}, count=1, block=self._block_ms
        )
        for _, entries in found.items() if isinstance(found, dict) else found or ():
            return _taken(entries)
        return None

    async def _set_idle(self, taken: Taken, idle_ms: int) -> None:
        with store_errors():
            # JUSTID: no other delivery is counted.
            await self._redis.xclaim(self._stream, _GROUP, self._consumer, 0, [taken.id], idle=idle_ms, justid=True)

    async def _make_group(self) -> None:
        with suppress(ResponseError):
            # Another worker may have made it meanwhile.
            await self._redis.xgroup_create(self._stream, _GROUP, id="0", mkstream=True)


def _taken(entries: Any) -> Taken:
    id, fields = entries[0]
    known = asdict(WorkItem("", ""))
    return Taken(id, WorkItem(**{name: fields.get(name, "") for name in known}))
