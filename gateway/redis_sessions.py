"""Sessions in Redis."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import cast

from pydantic import TypeAdapter
from redis.asyncio import Redis

from gateway.sessions import TITLE_CHARS, Page, Session, Summary, Turn
from meshkit.identity import Identity
from meshkit.redis_store import store_errors

_TURN = TypeAdapter(Turn)

# Keys: the session, its turns, their order, the index. A script, since it asks whether the turn is new, and costs the
# gateway a third of what a dozen commands do.
_PUT = """
local id, answer, turn, title, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local ttl, max_turns, max_sessions = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
if redis.call('HSETNX', KEYS[1], 'title', title) == 1 then redis.call('HSET', KEYS[1], 'create_s', now) end
redis.call('HSET', KEYS[1], 'update_s', now)
if redis.call('HSET', KEYS[2], answer, turn) == 1 and redis.call('RPUSH', KEYS[3], answer) > max_turns then
    redis.call('HDEL', KEYS[2], redis.call('LPOP', KEYS[3]))
end
redis.call('ZADD', KEYS[4], now, id)
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - ttl)
for _, oldest in ipairs(redis.call('ZRANGE', KEYS[4], 0, -max_sessions - 1)) do
    local key = string.sub(KEYS[1], 1, -#id - 1) .. oldest
    redis.call('DEL', key, key .. ':turns', key .. ':order')
    redis.call('ZREM', KEYS[4], oldest)
end
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ttl) end
"""
_REMOVE = """
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('LREM', KEYS[3], 1, ARGV[2])
if redis.call('EXISTS', KEYS[3]) == 0 then
    redis.call('DEL', KEYS[1])
    redis.call('ZREM', KEYS[4], ARGV[1])
end
"""
_SUMMARISE = """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'summary', ARGV[1], 'through', ARGV[2]) end
"""


class RedisSessions:
    """Sessions under keys that hold tenant and subject, so that nobody finds another's; needs no closing.

    A session is a hash (title, times, summary), a hash of turns by their answers, a list of their order and an entry
    in its owner's index by last use. All of it is forgotten `ttl_s` after its last turn. The last `max_turns` and
    `max_sessions` are kept.
    """

    def __init__(self, redis: Redis, ttl_s: int, max_turns: int, max_sessions: int) -> None:
        self._redis = redis
        self._ttl_s = ttl_s
        self._limits = (ttl_s, max_turns, max_sessions)
        self._put = redis.register_script(_PUT)
        self._remove = redis.register_script(_REMOVE)
        self._summarise = redis.register_script(_SUMMARISE)

    async def load(self, owner: Identity, id: str) -> Session | None:
        key, turns_key, order_key, _ = _keys(owner, id)
        with store_errors():
            async with self._redis.pipeline() as pipeline:
                pipeline.hgetall(key)
                pipeline.hgetall(turns_key)
                pipeline.lrange(order_key, 0, -1)
                head, turns, order = await pipeline.execute()
        return self._session(id, head, tuple(_TURN.validate_json(turns[answer]) for answer in order)) if head else None

    async def put(self, owner: Identity, id: str, turn: Turn) -> None:
        title, now_s = " ".join(turn.question.split())[:TITLE_CHARS], datetime.now(UTC).timestamp()
        args = (id, turn.answer, _TURN.dump_json(turn), title, now_s, *self._limits)
        with store_errors():
            await self._put(keys=_keys(owner, id), args=args)

    async def remove(self, owner: Identity, id: str, answer: str) -> None:
        with store_errors():
            await self._remove(keys=_keys(owner, id), args=(id, answer))

    async def summarise(self, owner: Identity, id: str, summary: Summary) -> None:
        with store_errors():
            await self._summarise(keys=[_key(owner, id)], args=(summary.text, summary.through))

    async def list(self, owner: Identity, cursor: str, limit: int) -> Page:
        """The sessions behind the cursor, which is the time of use and the id of the last one shown."""
        with store_errors():
            # At most max_sessions: read whole, so that sessions used at the same moment page exactly.
            used = await self._redis.zrevrange(_index(owner), 0, -1, withscores=True)
            places = [f"{used_s:020.6f}/{id}" for id, used_s in cast(list[tuple[str, float]], used)]
            behind = [place for place in places if not cursor or place < cursor]
            page = behind[:limit]
            ids = [place.partition("/")[2] for place in page]
            async with self._redis.pipeline(transaction=False) as pipeline:
                for id in ids:
                    pipeline.hgetall(_key(owner, id))
                heads = await pipeline.execute()
        sessions = [self._session(id, head) for id, head in zip(ids, heads, strict=True) if head]
        return Page(sessions, page[-1] if len(behind) > limit else "")

    async def delete(self, owner: Identity, id: str) -> bool:
        *keys, index = _keys(owner, id)
        with store_errors():
            async with self._redis.pipeline() as pipeline:
                pipeline.delete(*keys)
                pipeline.zrem(index, id)
                deleted, _ = await pipeline.execute()
        return bool(deleted)

    def _session(self, id: str, head: Mapping[str, str], turns: tuple[Turn, ...] = ()) -> Session:
        updated = datetime.fromtimestamp(float(head["update_s"]), UTC)
        return Session(
            id=id,
            title=head["title"],
            create_time=datetime.fromtimestamp(float(head["create_s"]), UTC),
            update_time=updated,
            expire_time=updated + timedelta(seconds=self._ttl_s),
            turns=turns,
            summary=Summary(head["summary"], head["through"]) if "summary" in head else None,
        )


# Ids hold no colon and stand last, so no subject, however odd, makes another's key.
def _key(owner: Identity, id: str) -> str:
    return f"ragmesh:{owner.tenant}:session:{owner.subject}:{id}"


def _keys(owner: Identity, id: str) -> list[str]:
    """Of the session, its turns, their order and its owner's index."""
    key = _key(owner, id)
    return [key, f"{key}:turns", f"{key}:order", _index(owner)]


def _index(owner: Identity) -> str:
    return f"ragmesh:{owner.tenant}:sessions:{owner.subject}"
