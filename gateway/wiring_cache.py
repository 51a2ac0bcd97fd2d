"""The wiring of the answer cache."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.caching import AnswerCache, Editions, Knobs, QueryEncoder, open_answer_cache
from gateway.redis_cache import RedisAnswerShelf
from gateway.settings import Settings
from meshkit.redis_store import open_redis


@asynccontextmanager
async def open_cache(settings: Settings, editions: Editions, encoder: QueryEncoder) -> AsyncIterator[AnswerCache]:
    """The cache over a client of its own: what it reads are bytes."""
    knobs = settings.cache
    shelf = (knobs.ttl_s, knobs.max_answers, knobs.max_questions)
    async with (
        open_redis(settings.redis_url, settings.redis_timeout_s, settings.redis_max_connections, decode=False) as redis,
        open_answer_cache(
            editions,
            encoder,
            RedisAnswerShelf(redis, *shelf),
            Knobs(
                ttl_s=knobs.ttl_s,
                similarity=knobs.similarity,
                timeout_s=knobs.timeout_s,
                max_questions=knobs.max_questions,
                max_collections=knobs.max_collections,
                memory_bytes=knobs.memory_bytes,
                max_answer_bytes=knobs.max_answer_bytes,
                max_filling=knobs.max_filling,
            ),
        ) as cache,
    ):
        yield cache
