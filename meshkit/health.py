"""Health (grpc.health.v1) of a server's services, from named probes whose results are kept for a while."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshkit.errors import MeshError

Probe = Callable[[], Awaitable[bool]]
SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceState:
    """Whether a service takes calls and, where it does not, why."""

    serving: bool
    message: str = ""


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """The state of each service, opened and closed by its server.

    The one refreshing task changes `_states`, all at once; Watches wait for the event that it then sets.
    """

    def __init__(self, services: Iterable[str], probes: Mapping[str, Probe], timeout_s: float) -> None:
        self._states = {service: ServiceState(False, "starting") for service in services}
        self._probes = dict(probes)
        self._timeout_s = timeout_s
        self._changed = asyncio.Event()
        self._draining = False

    def states(self) -> Mapping[str, ServiceState]:
        """The state of each service by its full name."""
        return self._states

    async def refresh(self) -> None:
        """Run every probe, at the same time; takes no longer than the time that a probe has."""
        states = await asyncio.gather(*(self._probed(service) for service in self._states))
        if not self._draining:
            self._change(dict(zip(self._states, states, strict=True)))

    def drain(self) -> None:
        """Say NOT_SERVING from now on and end the open Watches."""
        self._draining = True
        self._change({service: ServiceState(False, "draining") for service in self._states})

    async def _probed(self, service: str) -> ServiceState:
        probe = self._probes.get(service)
        if probe is None:
            return ServiceState(True)
        try:
            async with asyncio.timeout(self._timeout_s):
                serving = await probe()
        except MeshError as error:
            return ServiceState(False, str(error))
        except Exception as error:
            # Words of a driver may hold an address or a password: they go to the log only.
            logger.warning("probe of %s failed", service, exc_info=error)
            return ServiceState(False, type(error).__name__)
        return ServiceState(serving, "" if serving else "not ready")

    def _change(self, states: dict[str, ServiceState]) -> None:
        for service, state in states.items():
            if state != self._states[service]:
                logger.info("%s is %s %s", service, "serving" if state.serving else "not serving", state.message)
        self._states = states
        self._changed.set()
        self._changed = asyncio.Event()

    def _status(self, service: str) -> health_pb2.HealthCheckResponse.ServingStatus:
        """The status of a service, or of the whole server for ""; SERVICE_UNKNOWN for one not here."""
        if service and service not in self._states:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        asked = [self._states[service]] if service else self._states.values()
        serving = not self._draining and all(state.serving for state in asked)
        return health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> health_pb2.HealthCheckResponse:
        """The status now; fails with NOT_FOUND for a service that is not here, as the protocol says."""
        status = self._status(request.service)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status now and at every change, until the server drains."""
        last = None
        while True:
            changed = self._changed
            status = self._status(request.service)
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
            if self._draining:
                return
            last = status
            await changed.wait()


@asynccontextmanager
async def open_health(
    services: Iterable[str], probes: Mapping[str, Probe], interval_s: float, timeout_s: float
) -> AsyncIterator[Health]:
    """Health that is refreshed every `interval_s`, for the first time before the body begins."""
    health = Health(services, probes, timeout_s)
    await health.refresh()
    refreshing = asyncio.create_task(_refresh_for_ever(health, interval_s))
    try:
        yield health
    finally:
        refreshing.cancel()
        with suppress(asyncio.CancelledError):
            await refreshing


async def _refresh_for_ever(health: Health, interval_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        await health.refresh()


async def peer_serves(channel: grpc.aio.Channel, service: str = "") -> bool:
    """Whether the peer says that the service is SERVING: a probe; raises what the call raises."""
    stub = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
