"""What goes wrong around vLLM on a tiny model, and what is left of it: nothing that waits, runs or grows."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.request import urlopen

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from meshkit.channel import MeshChannel, peer_errors
from meshkit.errors import Aborted, DeadlineExceeded, MeshError, Unavailable
from meshkit.settings import ChannelSettings
from meshkit.testing import connect
from ragmesh.generator.v1 import generator_pb2, generator_pb2_grpc
from tests.generator_svc.conftest import Stub
from tests.generator_svc.serving import ALICE, MALLORY, calling, read, request, text
from tests.generator_svc.vllm_process import MAX_RUNNING, VllmProcess, vllm_process

# The first test waits for the engine's start, and those that kill it for the next: half a minute on a busy machine.
pytestmark = pytest.mark.timeout(240)

MAX_WAITING = 56
STALL_S = 5.0
# More than the streams take on a busy machine.
GRACE_S = "60"
SERVICE = generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name
ENDLESS = request(prompt="A mesh", ignore_eos=True)
# With the likeliest tokens beside each it is many times what gRPC takes in for the reader of `_reluctant`.
LARGE = request(prompt="A mesh", max_tokens=300, ignore_eos=True, logprobs=20, sampling={"temperature": 0})
GREEDY = request(prompt="A mesh", max_tokens=20, ignore_eos=True, sampling={"temperature": 0})


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmProcess]:
    """The process of all tests here but the last; the one before it ends it."""
    with vllm_process(
        model,
        tmp_path_factory.mktemp("faults"),
        MAX_WAITING=str(MAX_WAITING),
        MAX_STALL_S=str(STALL_S),
        PROBE_INTERVAL_S="0.1",
        RESTART_BACKOFF_S="0.1",
        DRAIN_GRACE_S=GRACE_S,
    ) as process:
        yield process


@pytest.fixture
async def stub(server: VllmProcess) -> AsyncIterator[Stub]:
    """A stub whose calls act for ALICE."""
    async with calling(server.target) as stub:
        yield stub


@pytest.fixture
async def reluctant(server: VllmProcess) -> AsyncIterator[Stub]:
    """A stub that takes in little before it is read."""
    options = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(server.target, options=options) as channel:
        yield generator_pb2_grpc.GeneratorServiceStub(MeshChannel(channel, ChannelSettings(), ALICE))


async def test_a_storm_of_aborts_leaves_nothing(server: VllmProcess, stub: Stub) -> None:
    """Hundreds of streams, more at once than are taken, end in every way at any moment, wave after wave.

    Then nothing runs or waits, the cache is empty, a new call is answered as ever, and from wave to wave the service
    keeps no memory; bench/soak.py looks closer, and at vLLM's process too.
    """
    chance = random.Random(0)
    expected = text(await read(stub.Generate(GREEDY)))
    held: list[int] = []
    ends: dict[str, int] = {}
    for _ in range(6):
        for end in await asyncio.gather(*(_stormed(stub, chance) for _ in range(100))):
            ends[end] = ends.get(end, 0) + 1
        await _until_idle(stub)
        held.append(psutil.Process(server.process.pid).memory_info().rss)

    print(f"ends: {ends}; memory in MB after each wave: {[size >> 20 for size in held]}")
    assert {"cancelled", "GENERATION_ABORTED", "DEADLINE_EXCEEDED", "OVERLOADED"} <= ends.keys()
    assert text(await read(stub.Generate(GREEDY))) == expected
    assert held[-1] - held[2] < 16 * 1024 * 1024


async def test_abort_may_be_repeated(stub: Stub) -> None:
    """Of many at once one at least says that it ended the stream, the later ones that there is none; none fails."""
    call = stub.Generate(ENDLESS)
    first = await anext(aiter(call))
    abort = generator_pb2.AbortRequest(generation_id=first.generation_id)

    at_once = await asyncio.gather(*(stub.Abort(abort) for _ in range(5)))
    with pytest.raises(Aborted, match="GENERATION_ABORTED"):
        await read(call)
    await _until_idle(stub)
    later = [await stub.Abort(abort) for _ in range(2)]

    assert any(answer.aborted for answer in at_once)
    assert not any(answer.aborted for answer in later)


async def test_a_reader_that_pauses_gets_all_and_holds_nobody_up(stub: Stub, reluctant: Stub) -> None:
    """While it takes nothing others are served and the engine makes the rest; that comes joined and is the same."""
    whole = await read(stub.Generate(LARGE))
    call = reluctant.Generate(LARGE)
    paused = [await anext(aiter(call))]
    await read(stub.Generate(GREEDY))
    while (await _load(stub)).kv_cache_use:
        await asyncio.sleep(0.01)
    paused += await read(call)

    assert text(paused) == text(whole)
    assert _tokens(paused) == _tokens(whole) == LARGE.max_tokens
    print(
        f"{LARGE.max_tokens} tokens of {sum(message.ByteSize() for message in whole)} bytes in {len(paused)} messages"
    )
    assert len(paused) < LARGE.max_tokens


async def test_readers_that_take_nothing_are_cut_off(server: VllmProcess, stub: Stub, reluctant: Stub) -> None:
    """With every slot taken by such readers, the next call is answered when they are cut, and they hear why.

    What was made for them meanwhile is bounded.
    """
    before = _memory_bytes(server)
    calls = [reluctant.Generate(LARGE) for _ in range(MAX_RUNNING)]
    for call in calls:
        await anext(aiter(call))

    await read(stub.Generate(GREEDY))
    grown = _memory_bytes(server) - before
    for call in calls:
        with pytest.raises(Aborted) as caught:
            await read(call)
        assert (caught.value.reason, caught.value.metadata) == ("READER_STALLED", {"limit_s": f"{STALL_S:g}"})
    await _until_idle(stub)

    print(f"{MAX_RUNNING} readers that took nothing: {grown >> 20} MB more")
    assert grown < 64 * 1024 * 1024


async def test_a_deadline_passes_in_the_queue(server: VllmProcess, stub: Stub) -> None:
    """Who waits behind full slots fails when its time is up, and the engine has never seen it."""
    calls = await _filled(stub)
    seen = await _metric(server, "vllm:prompt_tokens")

    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await read(stub.Generate(GREEDY, timeout=0.5))
    took_s = time.monotonic() - began
    load = await _load(stub)

    assert (load.running, load.waiting) == (MAX_RUNNING, 0)
    assert 0.4 < took_s < 1.5
    for call in calls:
        call.cancel()
    await _until_idle(stub)
    assert await _metric(server, "vllm:prompt_tokens") == seen
    usage = (await read(stub.Generate(GREEDY)))[-1].usage
    assert await _metric(server, "vllm:prompt_tokens") == seen + usage.prompt_tokens


async def test_a_tenant_that_floods_starves_nobody(server: VllmProcess, stub: Stub) -> None:
    """One call of another tenant, sent when most of the first's wait, is answered before most of them."""
    asked = request(prompt="A mesh", max_tokens=60, ignore_eos=True)
    ended: list[str] = []

    async def answered(stub: Stub, tenant: str) -> None:
        await read(stub.Generate(asked))
        ended.append(tenant)

    async with calling(server.target, MALLORY) as other, asyncio.TaskGroup() as tasks:
        await _load(other)
        for _ in range(5 * MAX_RUNNING):
            tasks.create_task(answered(stub, ALICE.tenant))
        while (await _load(stub)).running < MAX_RUNNING:
            await asyncio.sleep(0.002)
        before = len(ended)
        tasks.create_task(answered(other, MALLORY.tenant))

    sooner = ended.index(MALLORY.tenant) - before
    print(f"{sooner} of the {5 * MAX_RUNNING - before} that were there before were answered sooner")
    assert sooner <= 2 * MAX_RUNNING < 5 * MAX_RUNNING - before


async def test_a_killed_engine_fails_its_streams_and_is_replaced(server: VllmProcess, stub: Stub) -> None:
    """Those that run and those that wait fail at once, health flips and flips back, a new call is answered; twice."""
    expected = text(await read(stub.Generate(GREEDY)))
    async with connect(server.target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=200)
        states = aiter(watch)
        assert (await anext(states)).status == health_pb2.HealthCheckResponse.SERVING
        for restarts in (1, 2):
            calls = [*await _filled(stub), *(stub.Generate(ENDLESS) for _ in range(4))]
            while (await _load(stub)).waiting < 4:
                await asyncio.sleep(0.005)
            began = time.monotonic()
            server.kill_engine()
            for call in calls:
                with pytest.raises(Unavailable, match="ENGINE_UNAVAILABLE"):
                    await read(call)
            failed_s = time.monotonic() - began

            assert (await anext(states)).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(Unavailable) as caught:
                await read(stub.Generate(GREEDY))
            assert (caught.value.reason, bool(caught.value.retry_after_s)) == ("ENGINE_UNAVAILABLE", True)
            assert (await anext(states)).status == health_pb2.HealthCheckResponse.SERVING
            print(f"all failed in {failed_s * 1000:.0f} ms, served again in {time.monotonic() - began:.1f} s")

            assert failed_s < 1
            assert text(await read(stub.Generate(GREEDY))) == expected
            assert await _metric(server, "ragmesh_generator_engine_restarts") == restarts
        await _until_idle(stub)
        watch.cancel()


async def test_sigterm_lets_streams_end(server: VllmProcess, stub: Stub) -> None:
    """All 20, of which some still wait, reach their end; new calls hear why not; the process ends with 0, and whole."""
    reading = await _reading(stub, 20)
    engines = server.engines()

    server.process.send_signal(signal.SIGTERM)
    await _until_refused(stub)

    assert sum(not task.done() for task in reading) > MAX_RUNNING
    assert [_tokens(await task) for task in reading] == [150] * 20
    assert await asyncio.to_thread(server.wait) == 0
    assert not psutil.wait_procs(engines, timeout=5)[1]


async def test_sigterm_to_the_group_spares_the_engine(model: Path, tmp_path: Path) -> None:
    """As a terminal sends it: all the same, and an engine killed in the midst of it ends its streams, not the drain.

    The process ends with 0, also where another engine is being started.
    """
    with vllm_process(model, tmp_path, RESTART_BACKOFF_S="0.01", DRAIN_GRACE_S=GRACE_S) as server:
        async with calling(server.target) as stub:
            endless = stub.Generate(ENDLESS)
            await anext(aiter(endless))
            reading = await _reading(stub, 19)

            server.signal_group(signal.SIGTERM)
            await _until_refused(stub)
            assert [_tokens(await task) for task in reading] == [150] * 19
            server.kill_engine()
            with pytest.raises(Unavailable, match="ENGINE_UNAVAILABLE"):
                await read(endless)

        began = time.monotonic()
        assert await asyncio.to_thread(server.wait) == 0
        print(f"ended {time.monotonic() - began:.1f} s after the engine")


async def _stormed(stub: Stub, chance: random.Random) -> str:
    """How a stream ended that was to end in one of four ways at some moment."""
    way, moment_s = chance.choice(["read", "cancel", "abort", "deadline"]), chance.uniform(0.001, 1.5)
    id = f"{chance.getrandbits(64):x}"
    asked = request(generation_id=id, prompt="A mesh", max_tokens=chance.randint(1, 100), ignore_eos=True)
    call = stub.Generate(asked, timeout=moment_s if way == "deadline" else 60)
    reading = asyncio.create_task(read(call))
    if way in ("cancel", "abort"):
        await asyncio.wait([reading], timeout=moment_s)
    if way == "cancel":
        call.cancel()
    if way == "abort":
        await stub.Abort(generator_pb2.AbortRequest(generation_id=id))
    try:
        await reading
    except MeshError as error:
        return error.reason
    except asyncio.CancelledError:
        return "cancelled"
    return "read"


async def _filled(stub: Stub) -> list[grpc.aio.UnaryStreamCall]:
    """Calls that take every slot for seconds, their first tokens read."""
    calls = [stub.Generate(ENDLESS) for _ in range(MAX_RUNNING)]
    for call in calls:
        await anext(aiter(call))
    return calls


async def _reading(stub: Stub, count: int) -> list[asyncio.Task[list[generator_pb2.GenerateResponse]]]:
    """So many streams of 150 tokens being read, when the server has them all and its slots are taken."""
    asked = request(prompt="A mesh", max_tokens=150, ignore_eos=True)
    tasks = [asyncio.create_task(read(stub.Generate(asked))) for _ in range(count)]
    while (load := await _load(stub)).running + load.waiting + sum(task.done() for task in tasks) < count:
        await asyncio.sleep(0.002)
    return tasks


async def _until_refused(stub: Stub) -> None:
    """Return when new calls hear that the server drains."""
    with pytest.raises(Unavailable, match="DRAINING"), peer_errors():
        while True:
            await _load(stub)


async def _load(stub: Stub) -> generator_pb2.GetLoadResponse:
    return await stub.GetLoad(generator_pb2.GetLoadRequest())


async def _until_idle(stub: Stub) -> None:
    """Return when nothing runs or waits and the engine itself has its cache back."""
    async with asyncio.timeout(10):
        while (load := await _load(stub)).running or load.waiting or load.kv_cache_use:
            await asyncio.sleep(0.005)


async def _metric(server: VllmProcess, name: str) -> float:
    """The sum of a counter of the process."""
    page = await asyncio.to_thread(lambda: urlopen(server.metrics, timeout=5).read().decode())
    families = {family.name: family for family in text_string_to_metric_families(page)}
    return sum(sample.value for sample in families[name].samples if sample.name == f"{name}_total")


def _memory_bytes(server: VllmProcess) -> int:
    """What the process and its engine have in memory."""
    return sum(process.memory_info().rss for process in (psutil.Process(server.process.pid), *server.engines()))


def _tokens(messages: list[generator_pb2.GenerateResponse]) -> int:
    return sum(len(message.token_ids) for message in messages)
