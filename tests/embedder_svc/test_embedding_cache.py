"""Vectors that were made before: keys, bytes, and what callers see of a cache that is there, slow, or away."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest

from embedder_svc.app import open_app
from embedder_svc.breaker import BreakerState
from embedder_svc.embedding_cache import CacheLimits, Encoded, cache_keys, pack, unpack
from embedder_svc.encoding import EncoderCard, Length, Task
from embedder_svc.metrics import CacheCollector
from embedder_svc.redis_embedding_cache import open_redis_embedding_cache
from embedder_svc.settings import Settings
from embedder_svc.weights import configuration
from meshkit.errors import ResourceExhausted
from meshkit.identity import Identity
from meshkit.testing import connect, serve
from meshkit.timing_wire import TIMINGS_KEY
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from tests.embedder_svc.doubles import LIMITS, MAX_TOKENS, WordEncoder
from tests.embedder_svc.serving import ALICE, embed, served, until
from tests.redis_server import RedisServer, open_redis_server

CARD = EncoderCard("m", "r", 256, "torch-cpu", 4)
CACHE = CacheLimits(
    ttl_s=60,
    read_timeout_s=1.0,
    write_timeout_s=2.0,
    max_pending_bytes=1 << 20,
    max_failures=2,
    open_s=0.05,
    max_connections=4,
)
LONG = " ".join(["word"] * (MAX_TOKENS + 1))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own."""
    with open_redis_server(tmp_path) as server:
        yield server


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """The URL of a server that takes connections and never answers."""
    hung = asyncio.Event()

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hung.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as listening:
        yield f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0"
        hung.set()


def kept(server: RedisServer) -> dict[bytes, bytes]:
    """What Redis holds."""
    with redis.Redis(port=server.port) as client:
        return {key: client.get(key) for key in client.scan_iter()}


def stages(answer: embedder_pb2.EmbedResponse) -> list[str]:
    """The stages of a call, in order."""
    return [timing.stage for timing in answer.timings.timings]


def keys(card: EncoderCard = CARD, recipe: str = "", tenant: str = "acme", task: Task = Task.QUERY) -> list[str]:
    """The keys of two texts."""
    return cache_keys(card, recipe, tenant, task, ["a text", "another"])


def test_each_part_of_a_key_makes_another_key() -> None:
    """Model, revision, backend, limit, dimension, recipe, task, tenant and text."""
    cards = [replace(CARD, name="n"), replace(CARD, revision="s"), replace(CARD, backend="torch-cuda")]
    cards += [replace(CARD, max_tokens=128), replace(CARD, dimension=8), replace(CARD, name="mr", revision="")]
    lists = [keys(), *(keys(card) for card in cards), keys(recipe="p"), keys(tenant="globex"), keys(task=Task.DOCUMENT)]
    every = [key for of_case in lists for key in of_case]
    assert len(set(every)) == len(every)
    assert keys() == keys()
    assert all(key.startswith("ragmesh:acme:embedding:1:") for key in keys())


def test_a_vector_comes_back_to_the_last_bit() -> None:
    """Also numbers that narrower forms would round; length and cut come with it."""
    vector = np.array([1 / 3, -1e-30, np.finfo(np.float32).tiny, 0.1], dtype=np.float32)
    back = unpack(pack(Encoded(vector, Length(300, True))), 4)
    assert back is not None
    assert back.vector.tobytes() == vector.tobytes()
    assert back.length == Length(300, True)


@pytest.mark.parametrize("value", [None, b"", b"x", b"x" * 23, b"x" * 25])
def test_bytes_of_another_length_are_no_vector(value: bytes | None) -> None:
    """Nothing, and what was not packed here, is a miss."""
    assert unpack(value, 4) is None


def test_a_models_configuration_is_told_apart(tmp_path: Path) -> None:
    """Weights alone do not make a vector: pooling and prompts are in other files."""
    (tmp_path / "1_Pooling").mkdir()
    config = tmp_path / "1_Pooling" / "config.json"
    seen = set()
    for pooling in ("mean", "cls"):
        config.write_text(pooling)
        seen |= {configuration(str(tmp_path)), configuration(str(tmp_path))}
    assert len(seen) == 2


async def test_a_hit_is_a_miss_but_for_the_encoding(server: RedisServer) -> None:
    """Same bytes, lengths and cut texts, in every width and cut; the encoder is not asked again."""
    encoder, texts = WordEncoder((4, 8)), ["one", LONG, "two words", "one"]
    requests = [embed(texts), embed(texts, dimensions=4), embed(texts, dtype="DATA_TYPE_FLOAT16")]
    async with open_redis_embedding_cache(server.url, CACHE) as cache, served(encoder, cache=cache) as (stub, _):
        miss = await stub.Embed(requests[0])
        await until(lambda: len(kept(server)) == 3)
        hits = [await stub.Embed(request) for request in requests]
        counts = cache.counts
    async with served(WordEncoder((4, 8))) as (stub, _):
        bare = [await stub.Embed(request) for request in requests]
    assert stages(miss) == ["cache", "tokenize", "queue", "encode"]
    assert [stages(hit) for hit in hits] == [["cache"]] * 3
    for answer in (miss, *hits, *bare):
        answer.ClearField("timings")
    assert hits == bare
    assert hits[0] == miss
    assert encoder.encoded == ["one", "two words", LONG]
    assert (counts.hits, counts.misses, counts.errors) == (9, 3, 0)


async def test_only_what_is_missing_is_encoded(server: RedisServer) -> None:
    """A batch of which some is known; tasks do not share vectors, nor do tenants."""
    encoder = WordEncoder()
    async with open_redis_embedding_cache(server.url, CACHE) as cache:
        async with served(encoder, cache=cache) as (stub, _):
            await stub.Embed(embed(["known"]))
            await until(lambda: len(kept(server)) == 1)
            await stub.Embed(embed(["new", "known", "newer"]))
            await stub.Embed(embed(["known"], task="TASK_TYPE_QUERY"))
        async with served(encoder, cache=cache, identity=Identity("globex", "bob")) as (stub, _):
            await stub.Embed(embed(["known"]))
    batches = [["known"], ["new", "newer"], ["known"], ["known"]]
    assert [texts for _, texts in encoder.batches] == batches
    assert {key.split(b":")[1] for key in kept(server)} == {b"acme", b"globex"}


async def test_known_texts_are_answered_where_the_queue_is_full(server: RedisServer) -> None:
    """They do not see the queue; what must be encoded is refused."""
    encoder = WordEncoder()
    limits = replace(LIMITS, max_queue_tokens=2)
    async with (
        open_redis_embedding_cache(server.url, CACHE) as cache,
        served(encoder, cache=cache, limits=limits) as (stub, embedder),
    ):
        await stub.Embed(embed(["known"]))
        await until(lambda: len(kept(server)) == 1)
        encoder.gate.clear()
        held = [stub.Embed(embed(["running"])), stub.Embed(embed(["waiting here"]))]
        await until(lambda: embedder.load.waiting == 1)
        assert (await stub.Embed(embed(["known"]))).vectors.count == 1
        with pytest.raises(ResourceExhausted):
            await embedder.embed(["unknown"], Task.DOCUMENT)
        encoder.gate.set()
        await asyncio.gather(*held)


async def test_what_was_kept_outlives_the_embedder_and_runs_out(server: RedisServer) -> None:
    """What waits to be written at the end is written; every key has a time to live."""
    async with open_redis_embedding_cache(server.url, CACHE) as cache, served(WordEncoder(), cache=cache) as (stub, _):
        await stub.Embed(embed([f"text {place}" for place in range(200)]))
    assert len(kept(server)) == 200
    with redis.Redis(port=server.port) as client:
        assert all(0 < client.ttl(key) <= CACHE.ttl_s for key in client.scan_iter())
    encoder = WordEncoder()
    async with open_redis_embedding_cache(server.url, CACHE) as cache, served(encoder, cache=cache) as (stub, _):
        await stub.Embed(embed(["text 7"]))
    assert encoder.batches == []


async def test_redis_killed_and_started_again_under_load(server: RedisServer) -> None:
    """No call fails or is wrong while Redis is away, and hits come back by themselves."""
    encoder, texts = WordEncoder(), [f"text {place}" for place in range(20)]
    expected = [row.tobytes() for row in encoder.encode(texts, Task.DOCUMENT)]
    asked = asyncio.Event()
    ended = False
    limits = replace(LIMITS, max_queue_tokens=100_000)

    async def ask(stub: Any, caller: int) -> None:
        place = caller
        while not ended:
            place = (place + 1) % len(texts)
            answer = await stub.Embed(embed([texts[place]]))
            assert answer.vectors.data == expected[place]
            asked.set()

    async def asked_again() -> None:
        asked.clear()
        await asked.wait()

    async with (
        open_redis_embedding_cache(server.url, CACHE) as cache,
        served(encoder, limits=limits, cache=cache) as (stub, _),
        asyncio.timeout(30),
        asyncio.TaskGroup() as callers,
    ):
        for caller in range(8):
            callers.create_task(ask(stub, caller))
        await until(lambda: cache.counts.hits > 0)
        server.kill()
        await until(lambda: cache.state is not BreakerState.CLOSED)
        await asked_again()
        await asyncio.to_thread(server.start)
        hits = cache.counts.hits
        await until(lambda: cache.state is BreakerState.CLOSED and cache.counts.hits > hits)
        ended = True


async def test_a_redis_that_never_answers_costs_a_bounded_time() -> None:
    """Each look-up ends at its limit, not at the socket's; once the breaker is open nobody asks at all."""
    limits = replace(CACHE, read_timeout_s=0.05, write_timeout_s=30.0, open_s=60.0, max_pending_bytes=0)
    async with (
        silent() as url,
        open_redis_embedding_cache(url, limits) as cache,
        served(WordEncoder(), cache=cache) as (stub, _),
    ):
        slow = [await stub.Embed(embed(["a text"])) for _ in range(limits.max_failures)]
        assert cache.state is BreakerState.OPEN
        quick = [await stub.Embed(embed([f"text {place}"])) for place in range(20)]
    waits_s = [answer.timings.timings[0].duration.ToTimedelta().total_seconds() for answer in slow]
    assert all(0.05 <= wait_s < 5.0 for wait_s in waits_s)
    assert all(answer.vectors.count == 1 for answer in quick)
    assert cache.counts.errors == limits.max_failures


async def test_redis_away_from_the_start(tmp_path: Path) -> None:
    """The embedder opens and answers; nothing is kept."""
    with open_redis_server(tmp_path) as server:
        server.kill()
        async with (
            open_redis_embedding_cache(server.url, CACHE) as cache,
            served(WordEncoder(), cache=cache) as (stub, _),
        ):
            assert (await stub.Embed(embed(["a text"]))).vectors.count == 1
            await until(lambda: cache.counts.dropped == 1)


async def test_a_redis_that_refuses_writes_is_still_read(server: RedisServer) -> None:
    """Full, it answers OOM to writes: an error that is counted and does not open the breaker."""
    encoder = WordEncoder()
    async with open_redis_embedding_cache(server.url, CACHE) as cache, served(encoder, cache=cache) as (stub, _):
        await stub.Embed(embed(["known"]))
        await until(lambda: len(kept(server)) == 1)
        with redis.Redis(port=server.port) as client:
            client.config_set("maxmemory", 1)
        for place in range(4):
            await stub.Embed(embed([f"text {place}"]))
        await until(lambda: cache.counts.dropped == 4)
        assert cache.state is BreakerState.CLOSED
        assert stages(await stub.Embed(embed(["known"]))) == ["cache"]


async def test_what_waits_to_be_written_is_bounded() -> None:
    """Beyond the bound vectors are dropped and counted, not gathered."""
    limits = replace(CACHE, max_pending_bytes=100, write_timeout_s=0.05)
    async with silent() as url, open_redis_embedding_cache(url, limits) as cache:
        cache.put({f"key {place}": b"x" * 40 for place in range(5)})
        assert cache.counts.dropped == 3


async def test_the_stages_are_in_a_trailer_too(server: RedisServer) -> None:
    """In the form of Server-Timing, for who reads with grpcurl."""
    async with (
        open_redis_embedding_cache(server.url, CACHE) as cache,
        served(WordEncoder(), cache=cache) as (stub, _),
    ):
        call = stub.Embed(embed(["a text"]))
        await call
        trailers = dict(await call.trailing_metadata())
    parts = str(trailers[TIMINGS_KEY]).split(", ")
    assert [part.split(";dur=")[0] for part in parts] == ["cache", "tokenize", "queue", "encode"]
    assert all(float(part.split(";dur=")[1]) >= 0 for part in parts)


async def test_metrics_tell_hits_misses_errors_and_the_breaker(server: RedisServer) -> None:
    """Under names that say whose they are."""
    registry = CollectorRegistry()
    async with open_redis_embedding_cache(server.url, CACHE) as cache, served(WordEncoder(), cache=cache) as (stub, _):
        registry.register(CacheCollector(cache))
        await stub.Embed(embed(["a", "b"]))
        await until(lambda: len(kept(server)) == 2)
        await stub.Embed(embed(["a", "c"]))
        told = generate_latest(registry).decode().splitlines()
    prefix = "ragmesh_embedder_cache_"
    expected = {"hits_total 1.0", "misses_total 3.0", "errors_total 0.0", "dropped_total 0.0", "breaker 0.0"}
    assert {prefix + line for line in expected} <= set(told)


async def test_vectors_of_the_real_encoder_outlive_its_process(server: RedisServer) -> None:
    """Opened again it answers from the cache, bit by bit the same; with another prompt it encodes anew."""
    request = embed(["a question", "and another"], task="TASK_TYPE_QUERY")

    async def answered(**settings: Any) -> embedder_pb2.EmbedResponse:
        async with (
            open_app(Settings(device="cpu", redis_url=server.url, cache_timeout_s=5.0, **settings)) as app,
            serve(app) as address,
            connect(address, ALICE) as channel,
        ):
            assert len(app.collectors) == 1
            return await embedder_pb2_grpc.EmbedderServiceStub(channel).Embed(request)

    miss, hit, other = await answered(), await answered(), await answered(query_prompt="query: ")
    assert [stages(answer)[1:] for answer in (hit, other)] == [[], ["tokenize", "queue", "encode"]]
    for answer in (miss, hit, other):
        answer.ClearField("timings")
    assert hit == miss
    assert other.vectors.data != miss.vectors.data
