"""The gateway's generator over three real servers, each behind a cable that can be cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from pydantic import ValidationError

from gateway.settings import Settings
from meshkit.errors import ResourceExhausted, Unavailable
from ragmesh.common.v1 import server_pb2
from ragmesh.gateway.v1 import mesh_pb2
from ragmesh.generator.v1 import generator_pb2
from tests.gateway.calling import once
from tests.gateway.conftest import open_gateway
from tests.gateway.peer_doubles import Peers
from tests.gateway.replica_world import (
    KNOBS,
    PROMPT,
    SESSIONS,
    World,
    generation,
    open_generators_over,
    open_replica,
    open_world,
    until,
)
from tests.generator_svc.serving import calling, request


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Three idle replicas."""
    async with open_world({}, {}, {}) as world:
        yield world


async def test_load_is_spread_by_tokens(world: World) -> None:
    """Who writes a long answer gets no short ones until the others have as much to write."""
    await world.begin(generation(900))
    (long,) = (replica for replica in world.replicas if replica.running)
    for _ in range(6):
        await world.begin(generation(200))
    assert sorted(replica.running for replica in world.replicas) == [1, 3, 3]
    assert long.running == 1


async def test_work_of_other_callers_counts(world: World) -> None:
    """A replica that somebody else keeps busy is avoided as soon as it says so."""
    busy = world.replicas[0]
    async with calling(busy.cable.target) as stub:
        call = stub.Generate(request(prompt="a", max_tokens=1000))
        await anext(aiter(call))
        await until(lambda: busy.running == 1)

        async def avoided() -> bool:
            return busy not in {await world.taker("") for _ in range(6)}

        await until(avoided)
        call.cancel()


async def test_answers_tell_of_load() -> None:
    """The report in an answer's trailer is enough to know that a replica has much to do for others."""
    knobs = KNOBS.model_copy(update={"poll_s": 3600, "report_half_life_s": 3600})
    async with open_world({}, {}, {}, knobs=knobs) as world:
        busy = world.replicas[0]
        session = await world.session_of(busy)
        async with calling(busy.cable.target) as stub:
            call = stub.Generate(request(prompt="a", max_tokens=1000))
            await anext(aiter(call))
            assert await world.taker(session) is busy
            assert await world.whole(generation(3, session)) == 3
            assert busy not in {await world.taker(session) for _ in range(3)}
            call.cancel()


async def test_turns_of_a_session_go_to_one_replica(world: World) -> None:
    """Each session has its replica, which others share."""
    takers = {session: {await world.taker(session) for _ in range(4)} for session in SESSIONS[:8]}
    assert all(len(taker) == 1 for taker in takers.values())
    assert len(set.union(*takers.values())) > 1


async def test_killed_before_its_first_token(world: World) -> None:
    """A generation that has said nothing yet goes on elsewhere, and so do those that come later."""
    lost = world.replicas[0]
    session = await world.session_of(lost)
    lost.engine.pause_s = 3600
    waiting = asyncio.create_task(world.whole(generation(5, session)))
    await until(lambda: lost.running == 1)
    lost.cable.cut()
    async with asyncio.timeout(5):
        assert await waiting == 5
    assert lost not in {await world.taker(session) for _ in range(3)}


async def test_killed_in_mid_stream(world: World) -> None:
    """What has been said cannot be said again: the stream ends UNAVAILABLE, and only that one."""
    sessions = [await world.session_of(replica) for replica in world.replicas]
    broken, *whole = [await world.begin(generation(30, session)) for session in sessions]
    world.replicas[0].cable.cut()
    with pytest.raises(Unavailable, match="PEER_UNAVAILABLE"):
        _ = [delta async for delta in broken]
    for deltas in whole:
        assert len([delta async for delta in deltas]) == 29
    assert await world.whole(generation(5)) == 5


async def test_overloaded_replica_passes_its_call_on() -> None:
    """A refusal is not seen by the caller while another replica has room."""
    full = {"max_running": 1, "max_waiting": 0}
    async with open_world(full, {}, {}) as world:
        first = world.replicas[0]
        session = await world.session_of(first)
        async with calling(first.cable.target) as stub:

            async def idle() -> bool:
                return not (await stub.GetLoad(generator_pb2.GetLoadRequest())).running

            # The engine is done with a stream before the server has its place back.
            await until(idle)
            call = stub.Generate(request(prompt="a", max_tokens=50))
            await anext(aiter(call))
            assert await world.whole(generation(5, session)) == 5
            call.cancel()


async def test_all_overloaded() -> None:
    """The caller hears the refusal that is over first, and that each was asked once."""
    full = {"max_running": 1, "max_waiting": 0}
    waits_s = (7.0, 3.0, 5.0)
    waits = ({"queue_retry_after_s": wait_s, "max_queue_retry_after_s": wait_s} for wait_s in waits_s)
    async with open_world(*({**full, **wait} for wait in waits)) as world:
        for _ in world.replicas:
            await world.begin(generation(500))
        for replica in world.replicas:
            replica.engine.pause_s = 3600
        with pytest.raises(ResourceExhausted, match="OVERLOADED") as refused:
            await world.whole(generation(5))
    assert refused.value.retry_after_s == 3.0


async def test_drained_replica_is_used_again_when_it_is_back(world: World) -> None:
    """Nobody notices the restart of a replica: the others take over, then it gets its sessions back."""
    drained = world.replicas[0]
    session = await world.session_of(drained)
    await drained.drain()
    for _ in range(6):
        assert await world.whole(generation(3, session)) == 3

    async def back() -> bool:
        return await world.taker(session) is drained

    await drained.start()
    await until(back)


async def test_dead_engine_is_avoided(world: World) -> None:
    """A server that is there while its engine is not takes no call; when the engine is back it does."""
    dead = world.replicas[0]
    session = await world.session_of(dead)
    dead.engine.alive = False
    for _ in range(6):
        assert await world.whole(generation(3, session)) == 3

    async def back() -> bool:
        return await world.taker(session) is dead

    dead.engine.alive = True
    await until(back)


async def test_none_answers(world: World) -> None:
    """With all replicas away a call fails as with one."""
    for replica in world.replicas:
        replica.cable.cut()
    with pytest.raises(Unavailable, match="PEER_UNAVAILABLE"):
        await world.whole(generation(5))
    with pytest.raises(Unavailable, match="PEER_UNAVAILABLE"):
        await world.generator.count_tokens("paced", PROMPT)


async def test_each_model_has_its_replicas() -> None:
    """All models are listed once, and each generation and count goes to who has its model."""
    async with open_world({"model": "small"}, {"model": "large"}, {"model": "large"}) as world:
        assert [model.name for model in await world.generator.list_models()] == ["small", "large"]
        for _ in range(4):
            await world.begin(generation(500, model="large"))
        assert [replica.running for replica in world.replicas] == [0, 2, 2]
        small = world.replicas[0]
        assert await world.whole(generation(3, model="small")) == 3
        small.engine.alive = False
        with pytest.raises(Unavailable):
            await world.whole(generation(3, model="small"))
        assert [model.ready for model in await world.generator.list_models()] == [False, True]


async def test_name_is_followed() -> None:
    """Who joins a name gets generations; who leaves it gets none, and ends those that it has."""
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(open_replica()) for _ in range(3)]
        going, staying, coming = (replica.cable.address for replica in replicas)
        addresses = [going, staying]

        async def resolve(host: str, port: int) -> list[str]:
            assert (host, port) == ("generators.test", 50053)
            return list(addresses)

        world = await stack.enter_async_context(open_generators_over(replicas, "dns:///generators.test:50053", resolve))
        begun = [await world.begin(generation(100)) for _ in range(2)]
        assert [replica.running for replica in replicas] == [1, 1, 0]
        replicas[0].engine.pause_s = 0.5
        addresses[:] = [staying, coming]

        async def moved() -> bool:
            return {await world.taker(session) for session in SESSIONS[:8]} == set(replicas[1:])

        await until(moved)
        assert replicas[0].running == 1
        replicas[0].engine.pause_s = 0
        for deltas in begun:
            assert len([delta async for delta in deltas]) == 99


async def test_answers_over_replicas(redis_url: str, peers: Peers) -> None:
    """A gateway over a list answers while one of it is away; the mesh's status shows each, away or not."""
    async with open_replica() as away, open_replica() as there:
        target = f"{away.cable.address},{there.cable.address}"
        async with open_gateway(redis_url, peers, generator_target=target) as gateway:
            away.cable.cut()
            there.engine.pause_s = 0
            servers = (await gateway.mesh.GetMeshStatus(mesh_pb2.GetMeshStatusRequest())).servers
            answers = [(await gateway.answers.AskOnce(once())).answer for _ in range(3)]
    assert [server.name for server in servers[2:4]] == ["generator_svc", "generator_svc"]
    assert [server.address for server in servers[2:4]] == [away.cable.address, there.cable.address]
    states = [server.services[0].state for server in servers[2:4]]
    assert states == [server_pb2.ServiceHealth.STATE_UNSPECIFIED, server_pb2.ServiceHealth.STATE_SERVING]
    assert all(answer.text for answer in answers)


async def test_nothing_is_left_behind() -> None:
    """Streams left half-way free their engines at once, and closing leaves no task and no call."""
    before = asyncio.all_tasks()
    async with open_world({}, {}, {}) as world:
        for _ in range(6):
            await world.begin(generation(1000))
        assert sum(replica.running for replica in world.replicas) == 6
        await world.leave()
        await until(lambda: not any(replica.running for replica in world.replicas))
    await until(lambda: asyncio.all_tasks() == before)


@pytest.mark.parametrize("target", ["", "a:1,,b:1", "dns:///a"])
def test_bad_target(target: str) -> None:
    """A target that cannot be called stops the process before it serves."""
    with pytest.raises(ValidationError, match="generator_target"):
        Settings(generator_target=target)
