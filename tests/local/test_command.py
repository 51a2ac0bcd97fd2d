"""The launcher says in one line why it does not start, and knows whether another runs."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from deploy.local import redis_server, state
from deploy.local.errors import AlreadyRunningError, StartError
from deploy.local.settings import LocalSettings, Ports
from deploy.local.supervisor import keep_running


async def _command(word: str, **environment: str) -> tuple[int, str, str]:
    """Run `python -m deploy.local`; exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "deploy.local",
        word,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode or 0, output.decode(), errors.decode()


@pytest.mark.parametrize(("name", "value"), [("STOP_TIMEOUT_S", "-1"), ("PORTS__EDGE", "99999")])
async def test_a_bad_setting_is_named(tmp_path: Path, name: str, value: str) -> None:
    """Exit code 2 and the variable's name."""
    bad = {f"RAGMESH_LOCAL_{name}": value}
    code, _, errors = await _command("up", RAGMESH_LOCAL_DATA_DIR=str(tmp_path), **bad)
    assert code == 2
    assert errors.startswith(f"RAGMESH_LOCAL_{name}: ")
    assert len(errors.splitlines()) == 1


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """Exit code 1 and one line that says which port, whose it is, and how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, errors = await _command(
            "up", RAGMESH_LOCAL_DATA_DIR=str(tmp_path), RAGMESH_LOCAL_PORTS__REDIS=str(port)
        )
    assert code == 1
    assert errors.strip() == (
        f"port {port} (redis) is in use; choose another by RAGMESH_LOCAL_PORTS__REDIS (0 for a free one)"
    )


async def test_a_second_up_says_where_the_first_is(tmp_path: Path) -> None:
    """It is no failure that the mesh runs already; nothing is started."""
    with state.owned(tmp_path):
        state.publish(tmp_path, {"edge": "127.0.0.1:4711"})
        code, output, _ = await _command("up", RAGMESH_LOCAL_DATA_DIR=str(tmp_path))
        assert code == 0
        assert "is already running at http://127.0.0.1:4711" in output


async def test_down_and_status_without_a_mesh_say_so(tmp_path: Path) -> None:
    """`down` has nothing to do, `status` fails; a folder that a killed launcher left does not count."""
    (tmp_path / "mesh.pid").write_text("1")
    (tmp_path / "mesh.json").write_text('{"edge": "127.0.0.1:1"}')
    assert await _command("down", RAGMESH_LOCAL_DATA_DIR=str(tmp_path)) == (0, "no mesh is running\n", "")
    assert await _command("status", RAGMESH_LOCAL_DATA_DIR=str(tmp_path)) == (1, "no mesh is running\n", "")


def test_a_data_folder_has_one_owner(tmp_path: Path) -> None:
    """The second is refused while the first runs, and not afterwards."""
    with state.owned(tmp_path):
        assert state.owner(tmp_path) == os.getpid()
        with pytest.raises(AlreadyRunningError), state.owned(tmp_path):
            pass
    assert state.owner(tmp_path) is None
    with state.owned(tmp_path):
        assert state.published(tmp_path) == {}


def test_free_ports_are_all_different() -> None:
    """Zeros become ports, each once; ports that are given stay."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = taken.getsockname()[1]
    chosen = Ports.free().model_copy(update={"edge": given}).chosen()
    ports = dict(chosen)
    assert chosen.edge == given
    assert len(set(ports.values())) == len(ports)
    assert all(ports.values())


def test_a_port_that_is_taken_is_refused() -> None:
    """Before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"port {port} \(edge\) is in use"):
            Ports.free().model_copy(update={"edge": port}).chosen()


async def test_redis_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    """A write that was answered is there after SIGKILL."""
    ports = Ports.free().chosen()
    settings = LocalSettings(data_dir=tmp_path, start_timeout_s=10, stop_timeout_s=5)
    program = redis_server.program(tmp_path / "redis", ports.redis)
    async with keep_running(program, tmp_path / "log", settings) as process:
        await process.serving()
        assert await _redis(ports.redis, "SET job done") == "+OK"
        process.kill()
        async with asyncio.timeout(10):
            while not (process.pid and await program.serves()):
                await asyncio.sleep(0.05)
        assert await _redis(ports.redis, "GET job") == "$4"


async def _redis(port: int, command: str) -> str:
    """The first line of the answer."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{command}\r\n".encode())
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
    return line.decode().strip()


async def test_an_interrupted_demo_says_so_by_its_exit_code(tmp_path: Path) -> None:
    """Ctrl-C in the middle of the demo ends it with 130, and nothing that it started is left."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.local", "demo"),
        env={**os.environ, "RAGMESH_LOCAL_DATA_DIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(50):
        assert b"redis" in await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
    commands = map(_words, psutil.process_iter())
    left = [words for words in commands if str(tmp_path) in " ".join(words)]
    assert left == []


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
