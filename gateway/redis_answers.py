"""Answers and feedback in Redis."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

from pydantic import TypeAdapter
from redis.asyncio import Redis

from gateway.answers import Answer
from gateway.feedback import Feedback
from meshkit.identity import Identity
from meshkit.redis_store import store_errors

_ANSWER = TypeAdapter(Answer)
_FEEDBACK = TypeAdapter(Feedback)
_BATCH = 100


@dataclass(frozen=True, slots=True)
class RedisAnswers:
    """Answers under keys that hold tenant and subject, for `ttl_s` seconds; needs no closing."""

    redis: Redis
    ttl_s: int

    async def save(self, owner: Identity, answer: Answer) -> None:
        with store_errors():
            await self.redis.set(_key(owner, answer.id), _ANSWER.dump_json(answer), ex=self.ttl_s)

    async def load(self, owner: Identity, id: str) -> Answer | None:
        with store_errors():
            kept = await self.redis.get(_key(owner, id))
        return _ANSWER.validate_json(kept) if kept else None


def _key(owner: Identity, id: str) -> str:
    return f"ragmesh:{owner.tenant}:answer:{owner.subject}:{id}"


@dataclass(frozen=True, slots=True)
class RedisFeedback:
    """The feedback of each tenant as a stream, of which the last `max_entries` or so are kept."""

    redis: Redis
    max_entries: int

    async def add(self, tenant: str, feedback: Feedback) -> str:
        """Record the feedback and return the id that it has got."""
        with store_errors():
            return str(
                await self.redis.xadd(
                    _stream(tenant), {"feedback": _FEEDBACK.dump_json(feedback)}, maxlen=self.max_entries
                )
            )

    async def list(self, tenant: str, cursor: str, limit: int) -> tuple[Sequence[Feedback], str]:
        behind = f"({cursor}" if cursor else "+"
        with store_errors():
            found = await self.redis.xrevrange(_stream(tenant), max=behind, count=limit + 1)
        kept = _read(found)
        return kept[:limit], kept[limit - 1].id if len(kept) > limit else ""

    async def all_since(self, tenant: str, since: datetime | None) -> AsyncIterator[Feedback]:
        """The ids are the times at which it was given, in milliseconds, so that they say where to begin."""
        begin = f"{int(since.timestamp() * 1000)}-0" if since else "-"
        while True:
            with store_errors():
                batch = _read(await self.redis.xrange(_stream(tenant), min=begin, count=_BATCH))
            for feedback in batch:
                yield feedback
            if len(batch) < _BATCH:
                return
            begin = f"({batch[-1].id}"


def _read(found: object) -> list[Feedback]:
    entries = cast(list[tuple[str, dict[str, str]]], found)
    return [replace(_FEEDBACK.validate_json(entry["feedback"]), id=id) for id, entry in entries]


def _stream(tenant: str) -> str:
    return f"ragmesh:{tenant}:feedback"
