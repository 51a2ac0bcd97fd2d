"""A server of the mesh: opened whole, drained in order."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from opentelemetry.sdk.trace import SpanProcessor
from prometheus_client.registry import Collector

from meshkit import health, server_info
from meshkit.admission import Permits
from meshkit.health import Health, Probe, open_health
from meshkit.interceptors import Interceptor
from meshkit.server_info import Load, ServerInfoServicer
from meshkit.settings import ServerSettings
from meshkit.telemetry import open_telemetry
from ragmesh.common.v1 import server_pb2_grpc

__all__ = ["App", "Load", "Registration", "RunningServer", "open_server"]

logger = logging.getLogger(__name__)

_REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]


@dataclass(frozen=True, slots=True)
class Registration:
    """A service to serve: its full name, the stubs' `add_X_to_server`, and the servicer."""

    name: str
    add: Callable[[Any, grpc.aio.Server], None]
    servicer: object


@dataclass(frozen=True, slots=True)
class App:
    """What a process serves; made by its `open_app`, which also closes what stands behind it.

    A probe answers for the registered service whose name is its key; a service without one serves as long as
    its process. `load` is told by GetServerInfo, by default the calls running. `collectors` join the server's
    metrics; make them with `registry=None`.
    """

    registrations: Sequence[Registration]
    probes: Mapping[str, Probe] = field(default_factory=dict)
    load: Callable[[], Load] | None = None
    collectors: Sequence[Collector] = ()


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that serves: the ports it took; `metrics_port` is 0 where it serves no metrics."""

    port: int
    metrics_port: int


@asynccontextmanager
async def open_server(
    settings: ServerSettings, app: App, processors: Sequence[SpanProcessor] = ()
) -> AsyncIterator[RunningServer]:
    """Serve the app on `settings.listen`, drain when the body ends; `processors` get the spans of its calls.

    Raises OSError where the address cannot be had, ValueError where a probe is for no service.
    """
    names = [registration.name for registration in app.registrations]
    if unknown := app.probes.keys() - set(names):
        raise ValueError(f"probes of services that are not registered: {sorted(unknown)}")
    async with AsyncExitStack() as stack:
        telemetry = await stack.enter_async_context(open_telemetry(settings, app.collectors, processors))
        permits = Permits(settings.max_concurrent_rpcs, settings.overload_retry_after_s)
        interceptor = Interceptor(settings, telemetry, permits)
        server = grpc.aio.server(interceptors=[interceptor], options=_options(settings))
        port = _bind(server, settings.listen)
        probing = open_health(names, app.probes, settings.probe_interval_s, settings.probe_timeout_s)
        state = await stack.enter_async_context(probing)
        _register(server, app, state, ServerInfoServicer(settings.process, state, app.load or _calls(permits)))
        stack.push_async_callback(_drain, settings, server, state, interceptor)
        await server.start()
        yield RunningServer(port, telemetry.metrics_port)


def _calls(permits: Permits) -> Callable[[], Load]:
    return lambda: Load(running=permits.running, waiting=0, limit=permits.limit)


def _register(server: grpc.aio.Server, app: App, state: Health, info: ServerInfoServicer) -> None:
    for registration in app.registrations:
        registration.add(registration.servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    server_pb2_grpc.add_ServerServiceServicer_to_server(info, server)
    _add_reflection(server, [registration.name for registration in app.registrations])


def _add_reflection(server: grpc.aio.Server, names: Sequence[str]) -> None:
    """Reflection as v1alpha, which grpcio ships, and as v1, which is the same but for the package's name."""
    servicer = reflection.aio.ReflectionServicer([*names, health.SERVICE, server_info.SERVICE, _REFLECTION.full_name])
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    methods = {"ServerReflectionInfo": handler}
    v1 = grpc.method_handlers_generic_handler("grpc.reflection.v1.ServerReflection", methods)
    server.add_generic_rpc_handlers((v1,))


def _bind(server: grpc.aio.Server, address: str) -> int:
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: it is in use or not an address of this machine") from error


async def _drain(settings: ServerSettings, server: grpc.aio.Server, state: Health, interceptor: Interceptor) -> None:
    """Say NOT_SERVING, let balancers notice, let running calls end, cut off the rest, await its clean-up."""
    state.drain()
    await asyncio.sleep(settings.drain_notice_s)
    # Not by stopping the server at once: gRPC then answers the calls on their way to it with CANCELLED, which nobody
    # retries.
    interceptor.draining = True
    if interceptor.tasks:
        await asyncio.wait(interceptor.tasks, timeout=settings.drain_grace_s)
    await server.stop(0 if interceptor.tasks else settings.cleanup_timeout_s)
    if interceptor.tasks:
        _, left = await asyncio.wait(interceptor.tasks, timeout=settings.cleanup_timeout_s)
        if left:
            logger.warning("%d calls did not clean up in time", len(left))


def _options(settings: ServerSettings) -> list[tuple[str, Any]]:
    ping_ms = round(settings.min_ping_interval_s * 1000)
    return [
        # A message over the limit is refused with its reason by the interceptor; gRPC itself would only cut
        # the call off, so its own limit is the wall behind.
        ("grpc.max_receive_message_length", 2 * settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Without these two a silent stream whose caller pings it is killed with "Too many pings".
        ("grpc.http2.min_ping_interval_without_data_ms", ping_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        # Two servers on one port would share its calls in silence.
        ("grpc.so_reuseport", 0),
    ]
