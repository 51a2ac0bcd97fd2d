"""The queue in front of the engine, over a real channel."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import grpc
import pytest
from prometheus_client import CollectorRegistry

from generator_svc.app import make_app
from generator_svc.settings import Settings
from meshkit import orca
from meshkit.errors import Aborted, DeadlineExceeded, NotFound, ResourceExhausted, Unavailable
from meshkit.testing import serve
from ragmesh.generator.v1 import generator_pb2
from ragmesh.generator.v1.generator_pb2_grpc import GeneratorServiceStub as Stub
from tests.generator_svc.doubles import PacedEngine, until
from tests.generator_svc.serving import MALLORY, called, calling, read, request, served

Call = grpc.aio.UnaryStreamCall


async def test_a_flood_of_one_tenant_delays_no_other() -> None:
    """One tenant has twenty waiting, as urgent as can be; another's single one, asked last, is next."""
    engine = PacedEngine(pause_s=0.002)
    async with (
        served(engine, max_running=1) as address,
        calling(address) as alice,
        calling(address, MALLORY) as mallory,
    ):
        first = alice.Generate(request(prompt="Go", max_tokens=1000, generation_id="first"))
        await anext(aiter(first))
        flood = [alice.Generate(request(prompt="Go", max_tokens=2, priority=-100)) for _ in range(20)]
        await _load_when(alice, waiting=20)
        single = mallory.Generate(request(prompt="Go", max_tokens=2, generation_id="single", priority=100))
        await _load_when(alice, waiting=21)
        first.cancel()
        await read(single)
        assert [asked.id for asked in engine.asked[:2]] == ["first", "single"]
        await _all(flood)


async def test_who_floods_a_full_queue_makes_room_for_others() -> None:
    """The last of the flood is refused in favour of another tenant, with the queue as it is and a time to come back."""
    async with (
        served(PacedEngine(), max_running=1, max_waiting=3, queue_retry_after_s=2) as address,
        calling(address) as alice,
        calling(address, MALLORY) as mallory,
    ):
        first = alice.Generate(request(prompt="Go", max_tokens=1000))
        await anext(aiter(first))
        flood = []
        for waiting in (1, 2, 3):
            flood.append(alice.Generate(request(prompt="Go", max_tokens=1)))
            await _load_when(alice, waiting)
        single = mallory.Generate(request(prompt="Go", max_tokens=1))
        with pytest.raises(ResourceExhausted, match="OVERLOADED") as caught:
            await read(flood.pop())
        first.cancel()
        await _all([single, *flood])

    assert caught.value.retry_after_s
    assert 2 <= caught.value.retry_after_s <= 60
    assert caught.value.metadata == {
        "running": "1",
        "limit": "1",
        "waiting": "3",
        "running_tokens": "1001",
        "token_limit": "0",
        "tenant_waiting": "2",
    }


async def test_waiting_ends_by_cancel_deadline_and_abort() -> None:
    """Each leaves the queue at once and never sees the engine."""
    engine = PacedEngine()
    async with called(engine, max_running=1) as stub:
        first = stub.Generate(request(prompt="Go", max_tokens=1000, generation_id="first"))
        await anext(aiter(first))
        cancelled = stub.Generate(request(prompt="Go", max_tokens=1))
        aborted = stub.Generate(request(prompt="Go", max_tokens=1, generation_id="aborted"))
        await _load_when(stub, waiting=2)
        with pytest.raises(DeadlineExceeded):
            await read(stub.Generate(request(prompt="Go", max_tokens=1), timeout=0.1))
        cancelled.cancel()
        await _load_when(stub, waiting=1)
        assert (await stub.Abort(generator_pb2.AbortRequest(generation_id="aborted"))).aborted
        with pytest.raises(Aborted, match="GENERATION_ABORTED"):
            await read(aborted)
        await _load_when(stub, waiting=0)
        first.cancel()

    assert [asked.id for asked in engine.asked] == ["first"]


async def test_the_load_is_what_runs_and_waits() -> None:
    """In sequences and in tokens, by GetLoad, within both limits; the cache's size is the budget that is not set."""
    engine = PacedEngine()
    engine.card = replace(engine.card, cache_tokens=250)
    async with called(engine, max_running=8) as stub:
        calls = [stub.Generate(request(prompt="Go", max_tokens=100)) for _ in range(3)]
        load = await _load_when(stub, waiting=1, running=2)
        for call in calls:
            call.cancel()
        idle = await _load_when(stub, waiting=0, running=0)

    assert (load.limit, load.running_tokens, load.token_limit) == (8, 202, 250)
    assert 250 < load.outstanding_tokens <= 300
    assert (idle.running_tokens, idle.outstanding_tokens) == (0, 0)


async def test_every_call_ends_with_the_load() -> None:
    """In its trailers: where it succeeded, was refused, named what is not there, and failed in mid-stream."""
    engine = PacedEngine()
    async with called(engine, max_running=1, max_waiting=0) as stub:
        done = stub.Generate(request(prompt="Go", max_tokens=3))
        await read(done)
        report = await _report(done)
        assert (report.running, report.limit, report.outstanding_tokens, report.cache_use) == (0, 1, 0, 0.25)
        assert report.tokens_per_second > 0

        failing = stub.Generate(request(prompt="Go", max_tokens=100))
        await anext(aiter(failing))
        refused = stub.Generate(request(prompt="Go", max_tokens=3))
        with pytest.raises(ResourceExhausted):
            await read(refused)
        report = await _report(refused)
        assert (report.running, report.waiting, report.limit) == (1, 0, 1)
        assert 50 < report.outstanding_tokens < 100

        unknown = stub.Generate(request(prompt="Go", model="llama-4"))
        with pytest.raises(NotFound):
            await read(unknown)
        assert (await _report(unknown)).running == 1

        engine.alive = False
        with pytest.raises(Unavailable):
            await read(failing)
        assert (await _report(failing)).running == 0


async def test_prometheus_is_told() -> None:
    """What runs and waits, who was refused and why, tokens, waits and slots freed."""
    engine = PacedEngine()
    own = Settings(listen="127.0.0.1:0", metrics_listen="", drain_grace_s=0.2, max_running=1, max_waiting=1)
    app = make_app(engine, own)
    registry = CollectorRegistry()
    for collector in app.collectors:
        registry.register(collector)
    async with serve(app, own) as address, calling(address) as stub:
        await read(stub.Generate(request(prompt="Go", max_tokens=3)))
        first = stub.Generate(request(prompt="Go", max_tokens=1000))
        await anext(aiter(first))
        waiting = stub.Generate(request(prompt="Go", max_tokens=1))
        await _load_when(stub, waiting=1)
        with pytest.raises(ResourceExhausted):
            await read(stub.Generate(request(prompt="Go", max_tokens=1)))
        told = {
            name: registry.get_sample_value(f"ragmesh_generator_{name}")
            for name in ("running", "waiting", "running_tokens", "prompt_tokens_total", "cached_prompt_tokens_total")
        }
        overloaded = registry.get_sample_value("ragmesh_generator_refused_total", {"reason": "overloaded"})
        first.cancel()
        await read(waiting)
        await until(lambda: not engine.running)

    assert told == {
        "running": 1,
        "waiting": 1,
        "running_tokens": 1001,
        "prompt_tokens_total": 1,
        "cached_prompt_tokens_total": 0,
    }
    assert overloaded == 1
    assert registry.get_sample_value("ragmesh_generator_refused_total", {"reason": "dropped"}) == 0
    assert registry.get_sample_value("ragmesh_generator_queue_wait_seconds_count") == 3
    assert registry.get_sample_value("ragmesh_generator_cancel_to_slot_free_seconds_count") == 1
    assert (registry.get_sample_value("ragmesh_generator_tokens_total") or 0) >= 5


async def _report(call: Call) -> orca.LoadReport:
    report = orca.from_trailers(await call.trailing_metadata())
    assert report
    return report


async def _all(calls: Sequence[Call]) -> None:
    for call in calls:
        await read(call)


async def _load_when(stub: Stub, waiting: int, running: int = 1) -> generator_pb2.GetLoadResponse:
    """The load as soon as so many wait and run."""
    async with asyncio.timeout(5):
        while True:
            load = await stub.GetLoad(generator_pb2.GetLoadRequest())
            if (load.waiting, load.running) == (waiting, running):
                return load
            await asyncio.sleep(0.001)
