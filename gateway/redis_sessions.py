"""Sessions in Redis."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from pydantic import TypeAdapter
from redis.asyncio import Redis

from gateway.sessions import TITLE_CHARS, Page, Session, Turn
from meshkit.identity import Identity
from meshkit.redis_store import store_errors

_TURN = TypeAdapter(Turn)


@dataclass(frozen=True, slots=True)
class RedisSessions:
    """Sessions under keys that hold tenant and subject, so that nobody finds another's; needs no closing.

    A session is a hash (title, times), a list of turns and an entry in its owner's index by last use. All of
    it is forgotten `ttl_s` after its last turn. The last `max_turns` and `max_sessions` are kept.
    """

    redis: Redis
    ttl_s: int
    max_turns: int
    max_sessions: int

    async def load(self, owner: Identity, id: str) -> Session | None:
        key = _key(owner, id)
        with store_errors():
            async with self.redis.pipeline() as pipeline:
                pipeline.hgetall(key)
                pipeline.lrange(f"{key}:turns", 0, -1)
                head, turns = await pipeline.execute()
        return self._session(id, head, tuple(map(_TURN.validate_json, turns))) if head else None

    async def append(self, owner: Identity, id: str, turn: Turn) -> None:
        key, index, now_s = _key(owner, id), _index(owner), datetime.now(UTC).timestamp()
        with store_errors():
            async with self.redis.pipeline() as pipeline:
                pipeline.hsetnx(key, "title", " ".join(turn.question.split())[:TITLE_CHARS])
                pipeline.hsetnx(key, "create_s", now_s)
                pipeline.hset(key, "update_s", now_s)
                pipeline.rpush(f"{key}:turns", _TURN.dump_json(turn))
                pipeline.ltrim(f"{key}:turns", -self.max_turns, -1)
                pipeline.zadd(index, {id: now_s})
                pipeline.zremrangebyscore(index, "-inf", now_s - self.ttl_s)
                pipeline.zremrangebyrank(index, 0, -self.max_sessions - 1)
                for each in (key, f"{key}:turns", index):
                    pipeline.expire(each, self.ttl_s)
                await pipeline.execute()

    async def list(self, owner: Identity, cursor: str, limit: int) -> Page:
        """The sessions behind the cursor, which is the time of use and the id of the last one shown."""
        with store_errors():
            # At most max_sessions: read whole, so that sessions used at the same moment page exactly.
            used = await self.redis.zrevrange(_index(owner), 0, -1, withscores=True)
            places = [f"{used_s:020.6f}/{id}" for id, used_s in cast(list[tuple[str, float]], used)]
            behind = [place for place in places if not cursor or place < cursor]
            page = behind[:limit]
            ids = [place.partition("/")[2] for place in page]
            async with self.redis.pipeline(transaction=False) as pipeline:
                for id in ids:
                    pipeline.hgetall(_key(owner, id))
                heads = await pipeline.execute()
        sessions = [self._session(id, head) for id, head in zip(ids, heads, strict=True) if head]
        return Page(sessions, page[-1] if len(behind) > limit else "")

    async def delete(self, owner: Identity, id: str) -> bool:
        key = _key(owner, id)
        with store_errors():
            async with self.redis.pipeline() as pipeline:
                pipeline.delete(key, f"{key}:turns")
                pipeline.zrem(_index(owner), id)
                deleted, _ = await pipeline.execute()
        return bool(deleted)

    def _session(self, id: str, head: Mapping[str, str], turns: tuple[Turn, ...] = ()) -> Session:
        updated = datetime.fromtimestamp(float(head["update_s"]), UTC)
        return Session(
            id=id,
            title=head["title"],
            create_time=datetime.fromtimestamp(float(head["create_s"]), UTC),
            update_time=updated,
            expire_time=updated + timedelta(seconds=self.ttl_s),
            turns=turns,
        )


# Ids hold no colon and stand last, so no subject, however odd, makes another's key.
def _key(owner: Identity, id: str) -> str:
    return f"ragmesh:{owner.tenant}:session:{owner.subject}:{id}"


def _index(owner: Identity) -> str:
    return f"ragmesh:{owner.tenant}:sessions:{owner.subject}"
