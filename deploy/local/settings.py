"""Every knob of the local mesh; those of the services are their own variables, passed through."""

import random
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat
from pydantic_settings import BaseSettings, SettingsConfigDict

from deploy.local.errors import StartError

HOST = "127.0.0.1"
# Below the range that the system hands out to connections, which might take a port between its choice and its use.
_FREE_RANGE = range(20_000, 32_000)


Port = Annotated[int, Field(ge=0, le=65535)]


class Ports(BaseModel):
    """The ports of the mesh, all on the loopback; 0 takes a free one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    edge: Port = 8080
    admin: Port = 9901
    redis: Port = 6390
    gateway: Port = 50051
    retriever: Port = 50052
    generator: Port = 50053
    embedder: Port = 50054
    ingest: Port = 50055
    gateway_metrics: Port = 9101
    retriever_metrics: Port = 9102
    generator_metrics: Port = 9103
    embedder_metrics: Port = 9104
    ingest_metrics: Port = 9105

    @classmethod
    def free(cls) -> "Ports":
        """Ports that are all to be chosen."""
        return cls(**dict.fromkeys(cls.model_fields, 0))

    def chosen(self) -> "Ports":
        """These ports with free ones for zeros; raises StartError where one of them is in use."""
        candidates = iter(random.sample(_FREE_RANGE, len(_FREE_RANGE)))  # no secret
        with ExitStack() as held:
            ports = {name: port for name, port in self if port}
            for name, port in ports.items():
                if not _hold(port, held):
                    variable = f"RAGMESH_LOCAL_PORTS__{name.upper()}"
                    raise StartError(f"port {port} ({name}) is in use; choose another by {variable} (0 for a free one)")
            for name, port in self:
                if not port:
                    ports[name] = next(candidate for candidate in candidates if _hold(candidate, held))
        return Ports(**ports)


def _hold(port: int, held: ExitStack) -> bool:
    """Bind the port until `held` closes; whether it was free."""
    listener = held.enter_context(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError:
        return False
    return True


class LocalSettings(BaseSettings):
    """How the local mesh runs."""

    model_config = SettingsConfigDict(frozen=True, env_prefix="RAGMESH_LOCAL_", env_nested_delimiter="__")

    data_dir: Path = Field(Path("data"), description="Folder of everything that the mesh keeps, and of its logs.")
    ports: Ports = Field(Ports(), description="Ports on the loopback.")
    generator_model: str = Field("", description="Language model, a name or a folder; empty for the extractive engine.")
    edge: Mapping[str, str] = Field({}, description="Values that replace those of deploy/envoy/defaults.env.")
    start_timeout_s: PositiveFloat = Field(300.0, description="Seconds that the mesh may take to serve.")
    drain_timeout_s: PositiveFloat = Field(10.0, description="Seconds that running calls have when the mesh stops.")
    stop_timeout_s: PositiveFloat = Field(30.0, description="Seconds that a process has to end before it is killed.")
    restart_backoff_s: PositiveFloat = Field(0.1, description="Seconds before a dead process starts again; doubles.")
    restart_backoff_max_s: PositiveFloat = Field(10.0, description="Most seconds before a dead process starts again.")
    poll_interval_s: PositiveFloat = Field(0.1, description="Seconds between two looks at a process that starts.")
