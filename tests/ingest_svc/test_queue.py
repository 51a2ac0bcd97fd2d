"""The queue of work in Redis: turns, precedence, and items whose taker has gone."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from ingest_svc.redis_queue import ENQUEUE, RedisQueue, fields
from ingest_svc.work import Lane, WorkItem
from meshkit.redis_store import open_redis
from tests.redis_server import RedisServer


@pytest.fixture
async def redis(empty_redis: RedisServer) -> AsyncIterator[Redis]:
    """A client of an empty Redis."""
    async with open_redis(empty_redis.url, 5.0, 16) as client:
        yield client


def queue(redis: Redis, *lanes: Lane, idle_s: float = 60.0, most: int = 0) -> RedisQueue:
    """One consumer of the queue."""
    return RedisQueue(redis, "q", lanes or tuple(Lane), claim_idle_s=idle_s, block_s=0.2, max_per_tenant=most)


async def put(redis: Redis, *items: tuple[str, str, str]) -> None:
    """Queue documents: tenant, id, job or ""."""
    enqueue = redis.register_script(f"{ENQUEUE}\nenqueue(KEYS[1], ARGV[1], ARGV[2], {{unpack(ARGV, 3)}})")
    for tenant, id, job in items:
        item = WorkItem(tenant, "alice", "c", id, "g", job)
        await enqueue(keys=["q"], args=[str(item.lane), tenant, *fields(item)])


async def taken(queue: RedisQueue, count: int) -> list[str]:
    """The ids of the next documents, each done before the next is taken."""
    ids = []
    for _ in range(count):
        found = await queue.take()
        assert found is not None
        ids.append(found.item.document)
        await queue.done(found)
    return ids


async def test_tenants_take_turns(redis: Redis) -> None:
    """One tenant's many documents do not stand before another's few."""
    await put(redis, *[("acme", f"a{number}", "job") for number in range(6)])
    consumer = queue(redis)
    assert await taken(consumer, 2) == ["a0", "a1"]
    await put(redis, ("other", "b0", "job"), ("other", "b1", "job"))
    assert sorted(await taken(consumer, 4)) == ["a2", "a3", "b0", "b1"]
    assert await taken(consumer, 2) == ["a4", "a5"]
    assert await consumer.take() is None


async def test_uploads_go_before_jobs_which_never_starve(redis: Redis) -> None:
    """Of each four, one at least is a job's."""
    await put(redis, *[("acme", f"job{number}", "job") for number in range(3)])
    await put(redis, *[("acme", f"upload{number}", "") for number in range(9)])
    order = await taken(queue(redis), 12)
    assert order[:3] == ["upload0", "upload1", "upload2"]
    assert [order.index(f"job{number}") for number in range(3)] == [3, 7, 11]


async def test_who_serves_uploads_takes_nothing_else(redis: Redis) -> None:
    """A consumer of one lane leaves the other's items, and is woken by its own."""
    await put(redis, ("acme", "job0", "job"))
    uploads = queue(redis, Lane.UPLOADS)
    assert await uploads.take() is None
    waiting = asyncio.create_task(uploads.take())
    await asyncio.sleep(0.05)
    await put(redis, ("acme", "upload0", ""))
    found = await waiting
    assert found is not None
    assert found.item.document == "upload0"


async def test_a_tenant_has_so_many_at_work(redis: Redis) -> None:
    """More than its share wait until one of them is done, whoever is free."""
    await put(redis, *[("acme", f"a{number}", "job") for number in range(3)], ("other", "b0", "job"))
    consumer = queue(redis, most=2)
    held = [await consumer.take() for _ in range(3)]
    assert sorted(found.item.document for found in held if found) == ["a0", "a1", "b0"]
    assert await consumer.take() is None
    first = next(found for found in held if found and found.item.document == "a0")
    await consumer.done(first)
    assert await taken(consumer, 1) == ["a2"]


async def test_what_a_dead_taker_held_is_given_out_again(redis: Redis) -> None:
    """After a while without heartbeat, and at once where it was given back; never while the heart beats."""
    await put(redis, ("acme", "a0", ""), ("acme", "a1", ""), ("acme", "a2", ""))
    first = queue(redis)
    held = [await first.take() for _ in range(3)]
    assert await queue(redis).take() is None
    assert held[1] is not None
    await first.release(held[1])
    found = await queue(redis).take()
    assert found is not None
    assert found.item == held[1].item
    heir = queue(redis, idle_s=0.05)
    await asyncio.sleep(0.06)
    assert held[0] is not None
    await first.hold(held[0])
    again = await heir.take()
    assert again is not None
    assert again.item.document in {"a1", "a2"}


async def test_an_empty_queue_leaves_nothing(redis: Redis) -> None:
    """When the last item is done, no stream is left, and the next item is taken as ever."""
    consumer = queue(redis)
    await put(redis, ("acme", "a0", "job"))
    assert await consumer.size() == 1
    assert await taken(consumer, 1) == ["a0"]
    assert await consumer.size() == 0
    assert await redis.keys("q:*:acme") == []
    await put(redis, ("acme", "a1", "job"))
    assert await taken(consumer, 1) == ["a1"]
