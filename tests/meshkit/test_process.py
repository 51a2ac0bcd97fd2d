"""A process of the mesh, from outside: its start, its signals, its exit code."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshkit import errors
from meshkit.channel import peer_errors, streaming
from meshkit.testing import connect
from tests.meshkit.probe import ALICE

ROOT = Path(__file__).parents[2]

# The whole of a service's process; what it does while it closes is what the tests look for.
PROGRAM = """
import asyncio, os, sys
from contextlib import asynccontextmanager
import probe_pb2, probe_pb2_grpc
from meshkit.process import main
from meshkit.server import App, Registration
from meshkit.settings import ServerSettings
from pydantic_settings import SettingsConfigDict

class Settings(ServerSettings):
    model_config = SettingsConfigDict(env_prefix="RAGMESH_PROBE_")
    start_s: float = 0.0
    fail: bool = False

class Probe(probe_pb2_grpc.ProbeServiceServicer):
    async def Count(self, request, context):
        for number in range(request.number):
            yield probe_pb2.ProbeResponse(number=number)
            await asyncio.sleep(0.02)

@asynccontextmanager
async def open_app(settings):
    print("opening", flush=True)
    await asyncio.sleep(settings.start_s)
    if settings.fail:
        raise ConnectionError("no store at redis")
    try:
        add = probe_pb2_grpc.add_ProbeServiceServicer_to_server
        yield App([Registration("meshkit.test.v1.ProbeService", add, Probe())])
    finally:
        print("app closed", flush=True)

if __name__ == "__main__":
    main(Settings, open_app)
"""


class Process:
    """A running service process and what it has written."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self, text: str) -> dict[str, Any]:
        """The next log line whose message begins with the text."""
        assert self.process.stderr
        async for line in self.process.stderr:
            with contextlib.suppress(json.JSONDecodeError):
                record = json.loads(line)
                if record["message"].startswith(text):
                    return dict(record)
        raise AssertionError(f"ended without saying {text!r}")

    async def ended(self) -> tuple[int, str, str]:
        """The exit code and what was left to read of stdout and stderr."""
        out, err = await asyncio.wait_for(self.process.communicate(), 20)
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def started(wire: Any, **settings: str) -> AsyncIterator[Process]:
    """A process of PROGRAM with the settings; killed at the end where it still runs."""
    stubs = Path(wire.probe__pb2.__file__).parent
    path = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "gen", stubs))
    variables = {f"RAGMESH_PROBE_{key.upper()}": value for key, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        env={**os.environ, "PYTHONPATH": path, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@asynccontextmanager
async def counting(wire: Any, port: int, number: int) -> AsyncIterator[Any]:
    """An open call to Count of the process at the port."""
    request = wire.ProbeRequest(number=number)
    async with (
        connect(f"127.0.0.1:{port}", ALICE) as channel,
        streaming(wire.ProbeServiceStub(channel).Count(request)) as call,
    ):
        yield call


async def read_all(call: Any) -> None:
    """Read until the stream ends."""
    while await call.read():
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_first_signal(wire: Any, number: signal.Signals) -> None:
    """The first signal drains: the running stream ends whole, the app is closed, the exit code is 0."""
    async with started(wire) as service:
        serving = await service.line("serving on")
        async with counting(wire, serving["port"], 20) as call:
            assert (await call.read()).number == 0
            service.process.send_signal(number)
            left = [(await call.read()).number for _ in range(19)]
            assert await call.read() is grpc.aio.EOF
        code, out, _ = await service.ended()
    assert left == list(range(1, 20))
    assert (code, out.splitlines()[-1]) == (0, "app closed")


async def test_second_signal(wire: Any) -> None:
    """A second signal ends the process at once, in the middle of the drain."""
    async with started(wire, drain_grace_s="60") as service:
        serving = await service.line("serving on")
        async with counting(wire, serving["port"], 100_000) as call:
            await call.read()
            service.process.terminate()
            await service.line("draining")
            service.process.terminate()
            code, out, _ = await service.ended()
    assert code == -signal.SIGTERM
    assert "app closed" not in out


async def test_killed(wire: Any) -> None:
    """A caller in the middle of a stream learns at once that the process was killed, as UNAVAILABLE."""
    async with started(wire) as service:
        serving = await service.line("serving on")
        async with counting(wire, serving["port"], 100_000) as call:
            await call.read()
            service.process.kill()
            with pytest.raises(errors.Unavailable, match="PEER_UNAVAILABLE"), peer_errors():
                await asyncio.wait_for(read_all(call), 5)


async def test_signal_while_starting(wire: Any) -> None:
    """A signal while the app is being opened ends the process without waiting for it."""
    async with started(wire, start_s="60") as service:
        assert service.process.stdout
        assert await service.process.stdout.readline() == b"opening\n"
        await asyncio.sleep(0.1)
        service.process.terminate()
        code, _, err = await service.ended()
    assert code == 0
    assert "Traceback" not in err


async def test_failing_start(wire: Any) -> None:
    """An app that cannot be opened ends the process with 1 and one line that says why."""
    async with started(wire, fail="1") as service:
        code, _, err = await service.ended()
    (line,) = err.splitlines()
    assert code == 1
    assert json.loads(line)["message"] == "cannot serve: ConnectionError: no store at redis"


async def test_port_in_use(wire: Any) -> None:
    """A port that is taken ends the process with 1 and a line that names the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with started(wire, listen=address) as service:
            code, out, err = await service.ended()
    assert (code, out.splitlines()[-1]) == (1, "app closed")
    # gRPC's core writes a line of its own beside ours.
    (line,) = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert line["message"].startswith("cannot serve: OSError: cannot listen on " + address)


async def test_metrics_port_in_use(wire: Any) -> None:
    """A metrics port that is taken ends the process with 1 and a line that names the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with started(wire, metrics_listen=address) as service:
            code, _, err = await service.ended()
    assert code == 1
    assert address in err


async def test_bad_settings(wire: Any) -> None:
    """Bad settings end the process with 2 and a line for each, naming the variable."""
    async with started(wire, max_deadline_s="soon", log_level="LOUD", typo="1") as service:
        code, out, err = await service.ended()
    assert (code, out) == (2, "")
    assert sorted(line.partition(":")[0] for line in err.splitlines()) == [
        "RAGMESH_PROBE_LOG_LEVEL",
        "RAGMESH_PROBE_MAX_DEADLINE_S",
        "RAGMESH_PROBE_TYPO",
    ]


async def test_collector_that_is_not_there(wire: Any, unused_tcp_port: int) -> None:
    """A trace collector that does not answer holds up neither the calls nor the end."""
    async with started(wire, otlp_endpoint=f"127.0.0.1:{unused_tcp_port}", drain_grace_s="1") as service:
        serving = await service.line("serving on")
        async with counting(wire, serving["port"], 1) as call:
            assert [response.number async for response in call] == [0]
        service.process.terminate()
        async with asyncio.timeout(10):
            code, out, _ = await service.ended()
    assert (code, out.splitlines()[-1]) == (0, "app closed")
