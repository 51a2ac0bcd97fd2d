"""ServerService: what a server says of itself."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from meshkit.health import Health, ServiceState
from ragmesh.common.v1 import server_pb2, server_pb2_grpc

SERVICE = server_pb2.DESCRIPTOR.services_by_name["ServerService"].full_name


@dataclass(frozen=True, slots=True)
class Load:
    """The work that a server has: calls running, calls waiting, and the most that run at once."""

    running: int
    waiting: int
    limit: int


class ServerInfoServicer(server_pb2_grpc.ServerServiceServicer):
    """Answers for one server, from its start to its end."""

    def __init__(self, name: str, health: Health, load: Callable[[], Load]) -> None:
        self._name = name
        self._health = health
        self._load = load
        self._start_time = Timestamp()
        self._start_time.GetCurrentTime()

    async def GetServerInfo(
        self, request: server_pb2.GetServerInfoRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> server_pb2.GetServerInfoResponse:
        """The server as it is now; its services in the order in which they were registered."""
        load = self._load()
        server = server_pb2.ServerInfo(
            name=self._name,
            version=_version(),
            start_time=self._start_time,
            services=[_health(service, state) for service, state in self._health.states().items()],
            load=server_pb2.Load(running=load.running, waiting=load.waiting, limit=load.limit),
        )
        return server_pb2.GetServerInfoResponse(server=server)


def _health(service: str, state: ServiceState) -> server_pb2.ServiceHealth:
    kind = server_pb2.ServiceHealth
    word = kind.STATE_SERVING if state.serving else kind.STATE_NOT_SERVING
    return server_pb2.ServiceHealth(service=service, state=word, message=state.message)


def _version() -> str:
    try:
        return metadata.version("ragmesh")
    except metadata.PackageNotFoundError:
        return "unknown"
