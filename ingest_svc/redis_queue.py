"""A queue of work in Redis streams with consumer groups: a stream for each tenant's uploads, one for its bulk work."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from redis.asyncio import Redis

from ingest_svc.work import Lane, Taken, WorkItem
from meshkit.redis_store import store_errors

# Kept of a queue `q`, for each lane: `q:lane:tenant`, the stream of a tenant's items; `q:lane:ready`, the streams that
# may have items nobody took, by when it was their turn; `q:lane:open`, all its streams; `q:lane:bell`, which wakes who
# waits. `q:turn` counts what was taken. A stream goes with its last item.
ENQUEUE = """
local function enqueue(queue, lane, tenant, fields)
  local stream = queue .. ':' .. lane .. ':' .. tenant
  if redis.call('EXISTS', stream) == 0 then
    redis.call('XGROUP', 'CREATE', stream, 'workers', '0', 'MKSTREAM')
  end
  redis.call('XADD', stream, '*', unpack(fields))
  redis.call('SADD', queue .. ':' .. lane .. ':open', stream)
  redis.call('ZADD', queue .. ':' .. lane .. ':ready', 'NX', redis.call('GET', queue .. ':turn') or 0, stream)
  redis.call('LPUSH', queue .. ':' .. lane .. ':bell', 1)
  redis.call('LTRIM', queue .. ':' .. lane .. ':bell', 0, 63)
end
"""
# KEYS: queue. ARGV: consumer, most items of a stream that it works on at once or 0, lanes by precedence.
# Each fourth item is of the last lane, where it has any. The streams of a lane take turns.
_TAKE = """
local function at_work(stream)
  for _, consumer in ipairs(redis.call('XPENDING', stream, 'workers')[4] or {}) do
    if consumer[1] == ARGV[1] then return tonumber(consumer[2]) end
  end
  return 0
end
local queue, most = KEYS[1], tonumber(ARGV[2])
local lanes = {unpack(ARGV, 3)}
local turn = tonumber(redis.call('GET', queue .. ':turn') or 0)
if turn % 4 == 3 then table.insert(lanes, 1, table.remove(lanes)) end
for _, lane in ipairs(lanes) do
  local ready, passed = queue .. ':' .. lane .. ':ready', false
  for _, stream in ipairs(redis.call('ZRANGE', ready, 0, -1)) do
    if most > 0 and at_work(stream) >= most then
      passed = true
    else
      local found = redis.call('XREADGROUP', 'GROUP', 'workers', ARGV[1], 'COUNT', 1, 'STREAMS', stream, '>')
      if found then
        redis.call('ZADD', ready, redis.call('INCR', queue .. ':turn'), stream)
        return {stream, found[1][2][1][1], found[1][2][1][2]}
      end
      redis.call('ZREM', ready, stream)
    end
  end
  if not passed then redis.call('DEL', queue .. ':' .. lane .. ':bell') end
end
return false
"""
# KEYS: queue. ARGV: consumer, milliseconds without heartbeat, lanes.
_CLAIM = """
for place = 3, #ARGV do
  for _, stream in ipairs(redis.call('SMEMBERS', KEYS[1] .. ':' .. ARGV[place] .. ':open')) do
    local idle = redis.call('XPENDING', stream, 'workers', 'IDLE', ARGV[2], '-', '+', 1)
    if idle[1] then
      local found = redis.call('XCLAIM', stream, 'workers', ARGV[1], ARGV[2], idle[1][1])
      if found[1] then return {stream, found[1][1], found[1][2]} end
    end
  end
end
return false
"""
# KEYS: queue, stream. ARGV: item, lane.
_DONE = """
redis.call('XACK', KEYS[2], 'workers', ARGV[1])
redis.call('XDEL', KEYS[2], ARGV[1])
if redis.call('XLEN', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[2])
  redis.call('SREM', KEYS[1] .. ':' .. ARGV[2] .. ':open', KEYS[2])
  redis.call('ZREM', KEYS[1] .. ':' .. ARGV[2] .. ':ready', KEYS[2])
elseif redis.call('ZSCORE', KEYS[1] .. ':' .. ARGV[2] .. ':ready', KEYS[2]) then
  -- Another of its items may be taken now.
  redis.call('LPUSH', KEYS[1] .. ':' .. ARGV[2] .. ':bell', 1)
  redis.call('LTRIM', KEYS[1] .. ':' .. ARGV[2] .. ':bell', 0, 63)
end
"""
# KEYS: queue. ARGV: lanes.
_SIZE = """
local size = 0
for _, lane in ipairs(ARGV) do
  for _, stream in ipairs(redis.call('SMEMBERS', KEYS[1] .. ':' .. lane .. ':open')) do
    size = size + redis.call('XLEN', stream)
  end
end
return size
"""


class RedisQueue:
    """Takes items of some lanes of one queue as one consumer; needs no closing. See WorkQueue.

    Tenants take turns, each with at most `max_per_tenant` items worked on here at once (0 for any number). An item that
    was idle for `claim_idle_s` (its taker's heartbeat stopped) is given out again. `_claimed_s` is when this consumer
    last looked for such items; only `take` changes it.
    """

    def __init__(
        self,
        redis: Redis,
        name: str,
        lanes: Sequence[Lane] = tuple(Lane),
        *,
        claim_idle_s: float,
        block_s: float,
        max_per_tenant: int = 0,
    ) -> None:
        self._redis = redis
        self._name = name
        self._lanes = [str(lane) for lane in lanes]
        self._consumer = uuid.uuid4().hex
        self._claim_idle_ms = round(claim_idle_s * 1000)
        self._claim_interval_s = claim_idle_s / 2
        self._block_s = block_s
        self._max_per_tenant = max_per_tenant
        self._claimed_s = float("-inf")
        self._take = redis.register_script(_TAKE)
        self._claim = redis.register_script(_CLAIM)
        self._done = redis.register_script(_DONE)
        self._size = redis.register_script(_SIZE)

    async def take(self) -> Taken | None:
        with store_errors():
            if taken := await self._left_behind() or await self._next():
                return taken
            rung = await self._redis.blpop([f"{self._name}:{lane}:bell" for lane in self._lanes], self._block_s)
            return await self._next() if rung else None

    async def hold(self, taken: Taken) -> None:
        await self._set_idle(taken, 0)

    async def release(self, taken: Taken) -> None:
        await self._set_idle(taken, self._claim_idle_ms)

    async def done(self, taken: Taken) -> None:
        with store_errors():
            await self._done(keys=[self._name, taken.stream], args=[taken.id, str(taken.item.lane)])

    async def size(self) -> int:
        """Items that wait or are worked on."""
        with store_errors():
            return int(await self._size(keys=[self._name], args=[str(lane) for lane in Lane]))

    async def _left_behind(self) -> Taken | None:
        """An item whose taker has gone, looked for at the start and now and then."""
        now_s = time.monotonic()
        if now_s - self._claimed_s < self._claim_interval_s:
            return None
        found = await self._claim(keys=[self._name], args=[self._consumer, self._claim_idle_ms, *self._lanes])
        if not found:
            # Nothing is left behind: look again after the interval, else at the next take.
            self._claimed_s = now_s
            return None
        return _taken(found)

    async def _next(self) -> Taken | None:
        found = await self._take(keys=[self._name], args=[self._consumer, self._max_per_tenant, *self._lanes])
        return _taken(found) if found else None

    async def _set_idle(self, taken: Taken, idle_ms: int) -> None:
        with store_errors():
            # JUSTID: no other delivery is counted.
            await self._redis.xclaim(taken.stream, "workers", self._consumer, 0, [taken.id], idle=idle_ms, justid=True)


def fields(item: WorkItem) -> list[str]:
    """An item as the fields of an entry."""
    return [word for pair in asdict(item).items() for word in pair]


def _taken(found: Any) -> Taken:
    stream, id, words = found
    kept = dict(zip(words[::2], words[1::2], strict=True))
    return Taken(stream, id, WorkItem(**{name: kept.get(name, "") for name in asdict(WorkItem("", ""))}))
