"""The mesh: Redis, the five services and Envoy, opened in this order and closed in the other."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.local import envoy, redis_server, services, state
from deploy.local.keys import SCOPES, Keys, open_keys
from deploy.local.settings import LocalSettings, Ports
from deploy.local.supervisor import Process, Program, keep_running

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Mesh:
    """The mesh of a data folder; it serves for as long as its `open_mesh` is open.

    Processes are by name: redis, embedder, generator, retriever, ingest, gateway, envoy. A process that dies is started
    again; `processes` is filled by `open_mesh` only.
    """

    data: Path
    ports: Ports
    keys: Keys
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def edge(self) -> str:
        """Where callers reach the mesh, host:port."""
        return services.address("edge", self.ports)

    @property
    def addresses(self) -> dict[str, str]:
        """Where each service listens, host:port, by name; for those who may go around the edge."""
        return {name: services.address(name, self.ports) for name in services.SERVICES}

    def token(self, tenant: str = "local", subject: str = "local", scopes: Iterable[str] = SCOPES) -> str:
        """A token that the edge takes, good for a day."""
        return self.keys.sign(tenant, subject, scopes)

    def describe(self) -> dict[str, Any]:
        """What `data/mesh.json` tells callers on this machine."""
        return {
            "edge": self.edge,
            "token_file": str(self.keys.token),
            "admin": services.address("admin", self.ports),
            "redis": services.address("redis", self.ports),
            "services": self.addresses,
            "pids": {name: process.pid for name, process in self.processes.items()},
        }


@asynccontextmanager
async def open_mesh(settings: LocalSettings, progress: Progress = lambda _line: None) -> AsyncIterator[Mesh]:
    """Start the mesh and yield when all of it serves.

    `progress` is told a line for each process that serves. Raises StartError.
    """
    data = settings.data_dir.resolve()
    async with AsyncExitStack() as stack:
        stack.enter_context(state.owned(data))
        issuer = {**envoy.DEFAULTS, **settings.edge}
        keys = open_keys(data, issuer["JWT_ISSUER"], issuer["JWT_AUDIENCE"])
        mesh = Mesh(data, settings.ports.chosen(), keys)
        for programs in _stages(mesh, settings):
            await _start(programs, mesh, settings, stack, progress)
        state.publish(data, mesh.describe())
        yield mesh


def _stages(mesh: Mesh, settings: LocalSettings) -> list[list[Program]]:
    """What starts together, in order: each stage needs the one before."""
    data, ports = mesh.data, mesh.ports
    config = data / "envoy.yaml"
    return [
        [redis_server.program(data / "redis", ports.redis)],
        [services.program(name, settings, ports, data) for name in services.SERVICES],
        [envoy.program(config, ports, mesh.keys, settings.edge, settings.drain_timeout_s)],
    ]


async def _start(
    programs: list[Program], mesh: Mesh, settings: LocalSettings, stack: AsyncExitStack, progress: Progress
) -> None:
    """Start the programs and return when all serve."""
    began = time.monotonic()

    async def report(process: Process) -> None:
        await process.serving()
        progress(f"{process.name:<10} serves after {time.monotonic() - began:.1f} s")

    def restarted() -> None:
        state.publish(mesh.data, mesh.describe())

    for program in programs:
        log = _fresh_log(mesh.data / "log" / f"{program.name}.log")
        running = keep_running(program, log, settings, restarted)
        mesh.processes[program.name] = await stack.enter_async_context(running)
    try:
        async with asyncio.TaskGroup() as group:
            for program in programs:
                group.create_task(report(mesh.processes[program.name]))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


def _fresh_log(path: Path) -> Path:
    """A log for this run; the one of the run before is kept beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.replace(path.with_suffix(".log.1"))
    return path
