"""Cached answers in Redis, for all replicas of the gateway."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from pydantic import TypeAdapter, ValidationError
from redis.asyncio import Redis

from gateway.caching import Asked, Kept
from gateway.nearest import CachedQuestion
from meshkit.redis_store import store_errors

_KEPT = TypeAdapter(Kept)
# Another form of what is kept gets another number: who reads it finds none of the old one.
_FORM = 1


@dataclass(frozen=True, slots=True)
class RedisAnswerShelf:
    """Answers by key and, for each collection, a stream of the questions that they answered; needs no closing.

    `redis` gives bytes. Answers are kept for `ttl_s` seconds, of each tenant the last `max_answers`; a stream has the
    last `max_questions`. Each name holds the tenant's.
    """

    redis: Redis
    ttl_s: int
    max_answers: int
    max_questions: int

    async def read(self, asked: Asked, after: str) -> tuple[Kept | None, Sequence[CachedQuestion]]:
        """Both in one round trip."""
        with store_errors():
            async with self.redis.pipeline(transaction=False) as pipeline:
                pipeline.get(_answer(asked.tenant, asked.key))
                pipeline.xrange(_questions(asked), min=f"({after}")
                kept, entries = await pipeline.execute()
        return _read_kept(kept), _read_questions(entries)

    async def get(self, tenant: str, key: str) -> Kept | None:
        with store_errors():
            return _read_kept(await self.redis.get(_answer(tenant, key)))

    async def put(self, asked: Asked, kept: Kept, vector: bytes) -> None:
        """The oldest answers of the tenant make room."""
        index, now_s = f"ragmesh:{asked.tenant}:cached:{_FORM}", time.time()
        with store_errors():
            async with self.redis.pipeline() as pipeline:
                pipeline.set(_answer(asked.tenant, asked.key), _KEPT.dump_json(kept), ex=self.ttl_s)
                pipeline.zadd(index, {asked.key: now_s})
                pipeline.zremrangebyscore(index, "-inf", now_s - self.ttl_s)
                pipeline.expire(index, self.ttl_s)
                if vector:
                    entry = _write_question(asked, kept, vector)
                    pipeline.xadd(_questions(asked), entry, maxlen=self.max_questions, approximate=False)
                    pipeline.expire(_questions(asked), self.ttl_s)
                pipeline.zrange(index, 0, -self.max_answers - 1)
                *_, spare = await pipeline.execute()
            if spare:
                async with self.redis.pipeline() as pipeline:
                    pipeline.delete(*(_answer(asked.tenant, key.decode()) for key in spare))
                    pipeline.zrem(index, *spare)
                    await pipeline.execute()


def _answer(tenant: str, key: str) -> str:
    return f"ragmesh:{tenant}:cached:{_FORM}:answer:{key}"


def _questions(asked: Asked) -> str:
    return f"ragmesh:{asked.tenant}:cached:{_FORM}:questions:{asked.collection}"


def _read_kept(value: bytes | str | None) -> Kept | None:
    try:
        return _KEPT.validate_json(value) if value else None
    except ValidationError:
        # Of another release of the gateway.
        return None


def _write_question(asked: Asked, kept: Kept, vector: bytes) -> dict[Any, Any]:
    halves = np.frombuffer(vector, "<f4").astype("<f2").tobytes()
    return {"key": asked.key, "kind": asked.kind, "edition": kept.edition, "text": asked.text, "vector": halves}


def _read_questions(entries: object) -> list[CachedQuestion]:
    read = []
    for id, entry in cast(Sequence[tuple[bytes, Mapping[bytes, bytes]]], entries):
        key, kind, edition, text = (entry[name].decode() for name in (b"key", b"kind", b"edition", b"text"))
        read.append(CachedQuestion(id.decode(), key, kind, edition, text, entry[b"vector"]))
    return read
