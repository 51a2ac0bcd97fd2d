"""Cached answers in a real Redis."""

from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from gateway.caching import Asked, How, Kept
from gateway.generation import Usage
from gateway.metrics import CacheCollector
from gateway.redis_cache import RedisAnswerShelf
from gateway.retrieval import Chunk, Hit, Span
from meshkit.errors import Unavailable
from meshkit.redis_store import open_redis
from tests.gateway.test_caching import World

ASKED = Asked("acme", "collections/handbook", "How long is leave?", "k0", "kind")
HIT = Hit(Chunk("chunks/1", "documents/d", "25 days.", Span(3, 11), metadata={"lang": "en", "n": [1.5, None]}), 0.5)
KEPT = Kept("7.s", ASKED.text, (HIT,), "25 days. [1]", (), (), Usage(3, 2, 1), 12.0)
VECTOR = np.array((0.6, 0.8), "<f4").tobytes()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client that gives bytes."""
    async with open_redis(redis_url, 1.0, 4, decode=False) as redis:
        yield redis


def shelf(redis: Redis) -> RedisAnswerShelf:
    """A shelf of three answers and two questions."""
    return RedisAnswerShelf(redis, ttl_s=60, max_answers=3, max_questions=2)


async def test_what_is_put_comes_back(redis: Redis) -> None:
    """The answer to the last field; the question with its vector in half precision, once."""
    await shelf(redis).put(ASKED, KEPT, VECTOR)
    kept, (question,) = await shelf(redis).read(ASKED, "0-0")
    assert kept == KEPT == await shelf(redis).get("acme", "k0")
    assert (question.key, question.kind, question.edition, question.text) == ("k0", "kind", "7.s", ASKED.text)
    assert np.frombuffer(question.vector, "<f2") == pytest.approx([0.6, 0.8], abs=1e-3)
    assert await shelf(redis).read(ASKED, question.id) == (KEPT, [])


async def test_tenants_and_collections_are_apart(redis: Redis) -> None:
    """The same key and collection name elsewhere has nothing."""
    await shelf(redis).put(ASKED, KEPT, VECTOR)
    assert await shelf(redis).read(replace(ASKED, tenant="bolt"), "0-0") == (None, [])
    assert await shelf(redis).read(replace(ASKED, collection="collections/other", key="k1"), "0-0") == (None, [])
    assert len(await redis.keys("ragmesh:acme:*")) == len(await redis.keys()) > 0


async def test_a_tenant_has_bounds(redis: Redis) -> None:
    """The oldest answers and questions go; everything has an end."""
    for place in range(6):
        await shelf(redis).put(replace(ASKED, key=f"k{place}"), KEPT, VECTOR)
    found = [await shelf(redis).get("acme", f"k{place}") is not None for place in range(6)]
    assert found == [False, False, False, True, True, True]
    _, questions = await shelf(redis).read(ASKED, "0-0")
    assert [question.key for question in questions] == ["k4", "k5"]
    assert all([0 < await redis.ttl(name) <= 60 for name in await redis.keys()])


async def test_what_another_release_kept_is_not_there(redis: Redis) -> None:
    """It is no error either."""
    await shelf(redis).put(ASKED, KEPT, b"")
    (name,) = await redis.keys("*:answer:*")
    await redis.set(name, b'{"another": "form"}')
    assert await shelf(redis).read(ASKED, "0-0") == (None, [])


async def test_a_store_that_is_away_says_so() -> None:
    """As everywhere."""
    async with open_redis("redis://127.0.0.1:1/0", 0.2, 1, decode=False) as redis:
        with pytest.raises(Unavailable):
            await shelf(redis).read(ASKED, "0-0")


async def test_lookups_are_counted() -> None:
    """By how they ended, from zero."""
    cache = World().open()
    await cache.find(ASKED)
    registry = CollectorRegistry()
    registry.register(CacheCollector(cache))
    counted = [registry.get_sample_value("ragmesh_gateway_cache_lookups_total", {"hit": how.value}) for how in How]
    assert counted == [0, 0, 1]
