"""A server: its health, what it says of itself, and how it drains."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from meshkit import errors
from meshkit.channel import peer_errors
from meshkit.health import peer_serves
from meshkit.server import Load, open_server
from meshkit.settings import ChannelSettings, ServerSettings
from meshkit.testing import connect, serve
from ragmesh.common.v1 import server_pb2, server_pb2_grpc
from tests.meshkit.probe import ALICE, NAME, Echo, app_of, invoke

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
QUICK = ServerSettings(metrics_listen="", drain_grace_s=0.2, probe_interval_s=0.02)


class Probe:
    """A probe that answers what it is told."""

    def __init__(self, answer: bool | Exception = True) -> None:
        self.answer = answer

    async def __call__(self) -> bool:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def check(channel: grpc.aio.Channel, service: str) -> int:
    """The status that health Check gives."""
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


async def info(channel: grpc.aio.Channel) -> Any:
    """What the server says of itself."""
    answer = await server_pb2_grpc.ServerServiceStub(channel).GetServerInfo(server_pb2.GetServerInfoRequest())
    return answer.server


@pytest.mark.parametrize(
    ("answer", "status"), [(True, SERVING), (False, NOT_SERVING), (ValueError("secret"), NOT_SERVING)]
)
async def test_check(wire: Any, answer: Any, status: int) -> None:
    """Check gives what the probe found, for the service and the whole server, to anybody."""
    app = app_of(wire, Echo(wire), probes={NAME: Probe(answer)})
    async with serve(app, QUICK) as address, connect(address) as channel:
        assert [await check(channel, NAME), await check(channel, "")] == [status, status]
        assert await peer_serves(channel, NAME) is (status == SERVING)


async def test_check_of_an_unknown_service(wire: Any) -> None:
    """Check of a service that is not here is NOT_FOUND, as the protocol says."""
    async with serve(app_of(wire, Echo(wire))) as address, connect(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(channel, "no.such.Service")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_probe_that_hangs(wire: Any) -> None:
    """A probe that takes too long has failed, and holds up neither the start nor the answer."""

    async def hang() -> bool:
        await asyncio.sleep(30)
        return True

    settings = QUICK.model_copy(update={"probe_timeout_s": 0.05})
    app = app_of(wire, Echo(wire), probes={NAME: hang})
    async with asyncio.timeout(5), serve(app, settings) as address, connect(address) as channel:
        assert await check(channel, NAME) == NOT_SERVING


async def test_watch(wire: Any) -> None:
    """Watch tells the status at once and at every change."""
    probe = Probe()
    async with (
        serve(app_of(wire, Echo(wire), probes={NAME: probe}), QUICK) as address,
        connect(address) as channel,
    ):
        call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=NAME))
        seen = []
        for answer in (False, True, True):
            seen.append((await asyncio.wait_for(call.read(), 5)).status)
            probe.answer = answer
        call.cancel()
    assert seen == [SERVING, NOT_SERVING, SERVING]


async def test_watch_of_an_unknown_service(wire: Any) -> None:
    """Watch of a service that is not here says SERVICE_UNKNOWN and stays open."""
    async with serve(app_of(wire, Echo(wire))) as address, connect(address) as channel:
        call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="no.such.Service"))
        assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        assert not call.done()
        call.cancel()


async def test_server_info(wire: Any) -> None:
    """GetServerInfo tells name, version, start, load and each service's state, without a driver's words."""
    app = app_of(wire, Echo(wire), probes={NAME: Probe(ValueError("secret"))}, load=lambda: Load(2, 1, 8))
    async with serve(app, QUICK) as address, connect(address) as channel:
        server = await info(channel)
    assert (server.name, bool(server.version)) == ("meshkit", True)
    assert server.start_time.seconds > 0
    assert (server.load.running, server.load.waiting, server.load.limit) == (2, 1, 8)
    assert [(s.service, s.state, s.message) for s in server.services] == [
        (NAME, server_pb2.ServiceHealth.STATE_NOT_SERVING, "ValueError")
    ]


async def test_probe_with_a_reason(wire: Any) -> None:
    """A probe that fails with an error of the tree tells its reason."""
    probe = Probe(errors.Unavailable("INDEX_UNAVAILABLE", "the index does not answer"))
    async with (
        serve(app_of(wire, Echo(wire), probes={NAME: probe}), QUICK) as address,
        connect(address) as channel,
    ):
        server = await info(channel)
    assert server.services[0].message == "INDEX_UNAVAILABLE: the index does not answer"


async def test_probe_of_no_service(wire: Any) -> None:
    """A probe for a service that is not registered is a mistake found at the start."""
    with pytest.raises(ValueError, match="Typo"):
        async with serve(app_of(wire, Echo(wire), probes={"Typo": Probe()})):
            pass


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection(wire: Any, version: str) -> None:
    """Reflection lists the services and gives the file of each one listed, in both versions, to anybody."""
    async with serve(app_of(wire, Echo(wire))) as address, connect(address) as channel:
        ask: Any = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        call = ask()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = [service.name for service in (await call.read()).list_services_response.service]
        for name in listed:
            await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
            assert (await call.read()).file_descriptor_response.file_descriptor_proto
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
    assert {NAME, "grpc.health.v1.Health", "ragmesh.common.v1.ServerService"} <= set(listed)


async def read_all(call: Any) -> None:
    """Read until the stream ends."""
    while await call.read():
        pass


class Streaming(Echo):
    """Counts slowly, and keeps how its stream ended."""

    ended = ""

    async def Count(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            for number in range(request.number):
                yield self.wire.ProbeResponse(number=number)
                await asyncio.sleep(0.02)
            self.ended = "whole"
        finally:
            await asyncio.sleep(0)
            self.ended = self.ended or "cut off"


async def test_drain(wire: Any) -> None:
    """A drain says NOT_SERVING first and ends Watches, lets a running stream end, and only then closes."""
    servicer = Streaming(wire)
    settings = ServerSettings(metrics_listen="", drain_grace_s=5.0, drain_notice_s=0.1)
    order: list[str] = []

    async def watch(channel: grpc.aio.Channel) -> None:
        call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        while answer := await call.read():
            order.append("serving" if answer.status == SERVING else "not serving")
        order.append("watch ended")

    async def count(channel: grpc.aio.Channel) -> None:
        responses = await invoke(channel, wire, "server_stream", wire.ProbeRequest(number=20))
        order.append(f"streamed {len(responses)}")

    server = open_server(settings, app_of(wire, servicer))
    running = await server.__aenter__()
    async with connect(f"127.0.0.1:{running.port}", ALICE) as channel:
        tasks = [asyncio.create_task(watch(channel)), asyncio.create_task(count(channel))]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(3):
            await server.__aexit__(None, None, None)
        ended_before_close = servicer.ended
        await asyncio.gather(*tasks)
    assert ended_before_close == "whole"
    assert order == ["serving", "not serving", "watch ended", "streamed 20"]


async def test_drain_cuts_off(wire: Any) -> None:
    """What still runs after the grace is cut off, and has been cleaned up when the server is closed."""
    servicer = Streaming(wire)
    server = open_server(QUICK, app_of(wire, servicer))
    running = await server.__aenter__()
    async with connect(f"127.0.0.1:{running.port}", ALICE) as channel:
        call = wire.ProbeServiceStub(channel).Count(wire.ProbeRequest(number=10000))
        await call.read()
        await server.__aexit__(None, None, None)
        with pytest.raises(errors.Unavailable), peer_errors():
            await read_all(call)
    assert servicer.ended == "cut off"


async def test_drain_refuses_new_calls(wire: Any) -> None:
    """While a stream goes on, whoever calls hears why not, by a status that may be retried; then the stream ends."""
    server = open_server(ServerSettings(metrics_listen="", drain_grace_s=30.0), app_of(wire, Streaming(wire)))
    running = await server.__aenter__()
    once = ChannelSettings(retry_attempts=1)
    async with asyncio.timeout(10), connect(f"127.0.0.1:{running.port}", ALICE, once) as channel:
        call = wire.ProbeServiceStub(channel).Count(wire.ProbeRequest(number=10000))
        await call.read()
        closing = asyncio.create_task(server.__aexit__(None, None, None))
        await asyncio.sleep(0.02)
        for _ in range(20):
            with pytest.raises(errors.Unavailable, match="DRAINING"), peer_errors():
                await invoke(channel, wire, "server_stream", wire.ProbeRequest(number=1))
        await call.read()
        call.cancel()
        await closing


async def test_open_watch_does_not_hold_a_drain(wire: Any) -> None:
    """A Watch that nobody reads does not hold the drain for its grace."""
    settings = ServerSettings(metrics_listen="", drain_grace_s=30.0)
    async with asyncio.timeout(5), serve(app_of(wire, Echo(wire)), settings) as address:
        channel = grpc.aio.insecure_channel(address)
        call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await call.read()
    await channel.close()


async def test_port_in_use(wire: Any) -> None:
    """A second server on the same port is refused, not given half of its calls."""
    async with serve(app_of(wire, Echo(wire))) as address:
        settings = ServerSettings(listen=address, metrics_listen="")
        with pytest.raises(OSError, match=address):
            async with serve(app_of(wire, Echo(wire)), settings):
                pass


async def test_open_and_close_many(wire: Any) -> None:
    """Nothing of a server that was closed stands in the way of the next."""
    for _ in range(5):
        async with serve(app_of(wire, Echo(wire))) as address, connect(address, ALICE) as channel:
            with peer_errors():
                await invoke(channel, wire, "unary", wire.ProbeRequest())
