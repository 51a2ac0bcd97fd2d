"""Starts the servers that the generation benchmarks load, all with the same engine arguments."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil

from bench.engine import ENVIRONMENT, MAX_STREAMS, arguments
from deploy.local import envoy, redis_server, services
from deploy.local.keys import open_keys
from deploy.local.settings import HOST, LocalSettings, Ports
from deploy.local.supervisor import Process, Program, keep_running
from tests.gateway.peer_doubles import open_peers

COLLECTION = "collections/bench"
PASSAGE = "The harbour opens at six in the morning. Boats are moored by the eastern pier."
_LIMITS = ("ASK_BURST", "ASK_PER_SECOND", "OTHER_BURST", "OTHER_PER_SECOND")


@dataclass(frozen=True, slots=True)
class Edge:
    """Envoy before the gateway: its address, a token that it takes, and the processes of both."""

    address: str
    token: str
    processes: tuple[Process, ...]


@asynccontextmanager
async def open_generator(model: str, folder: Path, ports: Ports) -> AsyncIterator[Process]:
    """generator_svc over the model, listening on its port of `ports`, admitting all that the benchmarks ask."""
    settings = LocalSettings(data_dir=folder, generator_model=model)
    program = services.program("generator", settings, ports, folder)
    own = {"MAX_RUNNING": str(MAX_STREAMS), "MAX_WAITING": "1024", "ENGINE_ARGS": json.dumps(arguments())}
    environment = {f"RAGMESH_GENERATOR_{name}": value for name, value in own.items()}
    async with _running(_with(program, environment), settings) as process:
        yield process


@asynccontextmanager
async def open_edge(folder: Path, ports: Ports) -> AsyncIterator[Edge]:
    """The gateway behind Envoy, with Redis; every search finds the one passage at once, for search is not measured."""
    settings = LocalSettings(data_dir=folder, edge=dict.fromkeys(_LIMITS, "1000000"))
    keys = open_keys(folder, envoy.DEFAULTS["JWT_ISSUER"], envoy.DEFAULTS["JWT_AUDIENCE"])
    async with AsyncExitStack() as stack:
        peers = await stack.enter_async_context(open_peers())
        peers.retriever.texts[COLLECTION] = [PASSAGE]
        gateway = services.program("gateway", settings, ports, folder)
        programs = [
            redis_server.program(folder / "redis", ports.redis),
            _with(gateway, {"RAGMESH_GATEWAY_RETRIEVER_TARGET": peers.address}),
            envoy.program(folder / "envoy.yaml", ports, keys, settings.edge, settings.drain_timeout_s),
        ]
        _, *processes = [await stack.enter_async_context(_running(program, settings)) for program in programs]
        yield Edge(services.address("edge", ports), keys.sign("local", "bench", ["ask", "search"]), tuple(processes))


@asynccontextmanager
async def open_vllm_serve(model: str, folder: Path, port: int) -> AsyncIterator[Process]:
    """The server of `vllm serve`, without its line in the log for each request; its model's name is `model`."""
    # The command itself looks for a package named vllm, which the CPU build is not.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    options = ["--served-model-name", "model", *_flags()]
    options += ["--host", HOST, "--port", str(port), "--disable-uvicorn-access-log"]

    async def serves() -> bool:
        try:
            async with httpx.AsyncClient(timeout=1.0) as client:
                return (await client.get(f"http://{HOST}:{port}/health")).is_success
        except httpx.TransportError:
            return False

    program = Program("vllm-serve", [*command, *options], serves, ENVIRONMENT)
    async with _running(program, LocalSettings(data_dir=folder)) as process:
        yield process


def engine_of(pid: int) -> int:
    """The process id of the engine that vLLM started for the process `pid`."""
    children = psutil.Process(pid).children()
    return next(child.pid for child in children if "EngineCore" in " ".join(child.cmdline()))


def _flags() -> list[str]:
    """The engine arguments as `vllm serve` takes them."""
    flags: list[str] = []
    for name, value in arguments().items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{option}" if value else f"--no-{option}")
        else:
            flags += [f"--{option}", str(value)]
    return flags


def _with(program: Program, environment: dict[str, str]) -> Program:
    return replace(program, environment={**program.environment, **environment})


@asynccontextmanager
async def _running(program: Program, settings: LocalSettings) -> AsyncIterator[Process]:
    """The program, serving; its log is in the settings' folder."""
    async with keep_running(program, settings.data_dir / f"{program.name}.log", settings) as process:
        await process.serving()
        yield process
