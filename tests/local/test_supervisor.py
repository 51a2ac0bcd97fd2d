"""Programs are started again when they die, stopped in order, and leave nothing behind."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local.errors import StartError
from deploy.local.settings import LocalSettings
from deploy.local.supervisor import Program, keep_running

# Ends on SIGTERM, having said so.
POLITE = (
    "import signal, sys, time; signal.signal(15, lambda *_: (print('bye'), sys.exit())); "
    "print('up', flush=True); time.sleep(60)"
)
# Starts a child and ignores SIGTERM; so does the child.
STUBBORN = (
    "import signal, subprocess, sys, time; signal.signal(15, signal.SIG_IGN); "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "print(child.pid, flush=True); time.sleep(60)"
)


def _settings(data: Path) -> LocalSettings:
    return LocalSettings(data_dir=data, start_timeout_s=10, stop_timeout_s=0.5, poll_interval_s=0.01)


def _program(code: str, log: Path) -> Program:
    async def serves() -> bool:
        return log.exists() and log.stat().st_size > 0

    return Program("program", [sys.executable, "-u", "-c", code], serves)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        # A zombie is gone for all but its parent.
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


async def test_a_killed_program_is_started_again(tmp_path: Path) -> None:
    """After SIGKILL another process takes its place, and whoever watches is told."""
    log, told = tmp_path / "log", asyncio.Event()
    async with keep_running(_program(POLITE, log), log, _settings(tmp_path), told.set) as process:
        await process.serving()
        first = process.pid
        assert not told.is_set()
        process.kill()
        await _until(lambda: process.pid not in {0, first})
        assert told.is_set()


async def test_a_program_ends_with_sigterm(tmp_path: Path) -> None:
    """When the body ends the program is drained, then told to end, and has the time to say goodbye."""
    log, order = tmp_path / "log", []

    async def drain() -> None:
        order.append(process.pid)

    plain = _program(POLITE, log)
    program = Program(plain.name, plain.arguments, plain.serves, drain=drain)
    async with keep_running(program, log, _settings(tmp_path)) as process:
        await process.serving()
        pid = process.pid
    assert order == [pid]
    assert log.read_text().split() == ["up", "bye"]
    assert not _alive(pid)


async def test_a_stubborn_program_is_killed_with_its_children(tmp_path: Path) -> None:
    """What ignores SIGTERM is killed after its time, and so is what it started."""
    log = tmp_path / "log"
    async with keep_running(_program(STUBBORN, log), log, _settings(tmp_path)) as process:
        await process.serving()
        pid, child = process.pid, int(log.read_text())
        assert _alive(child)
    await _until(lambda: not _alive(pid) and not _alive(child))


async def test_children_of_a_killed_program_do_not_stay(tmp_path: Path) -> None:
    """SIGKILL to a program ends the processes that it left."""
    log = tmp_path / "log"
    async with keep_running(_program(STUBBORN, log), log, _settings(tmp_path)) as process:
        await process.serving()
        child = int(log.read_text())
        process.kill()
        await _until(lambda: not _alive(child))


async def test_a_program_that_ends_while_starting_is_not_tried_again(tmp_path: Path) -> None:
    """Its last words are the reason that is given."""
    log = tmp_path / "log"
    program = Program("picky", [sys.executable, "-c", "raise SystemExit('no such model')"], _never)
    async with keep_running(program, log, _settings(tmp_path)) as process:
        with pytest.raises(StartError, match="picky ended while starting:\n  no such model"):
            await process.serving()


async def test_a_program_that_never_serves_is_given_up(tmp_path: Path) -> None:
    """After the time for starting it is said which program does not serve."""
    settings = _settings(tmp_path).model_copy(update={"start_timeout_s": 0.2})
    program = Program("mute", [sys.executable, "-c", POLITE], _never)
    async with keep_running(program, tmp_path / "log", settings) as process:
        with pytest.raises(StartError, match="mute does not serve"):
            await process.serving()


async def _never() -> bool:
    return False


async def test_a_program_can_be_kept_away(tmp_path: Path) -> None:
    """For as long as `stopped` is open nothing runs; then it serves again."""
    log = tmp_path / "log"
    async with keep_running(_program(POLITE, log), log, _settings(tmp_path)) as process:
        await process.serving()
        first = process.pid
        async with process.stopped():
            await asyncio.sleep(0.3)
            assert process.pid == 0
        await _until(lambda: process.pid not in {0, first})
        second = process.pid
        await process.restart()
        assert process.pid not in {0, first, second}


async def test_children_end_when_the_launcher_is_killed(tmp_path: Path) -> None:
    """SIGKILL to the launcher itself, which can do nothing about it, leaves no child running."""
    launcher = (
        "import asyncio, sys; from pathlib import Path; "
        "from deploy.local.settings import LocalSettings; from deploy.local.supervisor import *\n"
        "async def main():\n"
        "    async def yes(): return True\n"
        "    program = Program('child', ['sleep', '60'], yes)\n"
        "    async with keep_running(program, Path(sys.argv[1]), LocalSettings()) as process:\n"
        "        await process.serving(); print(process.pid, flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", launcher, str(tmp_path / "log"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    child = int(await asyncio.wait_for(process.stdout.readline(), 20))
    assert _alive(child)
    process.kill()
    await process.wait()
    await _until(lambda: not _alive(child))


async def test_a_signal_that_does_not_end_the_program_is_just_passed_on(tmp_path: Path) -> None:
    """A stopped (SIGSTOP) program is still the same process, and ends with the others."""
    log = tmp_path / "log"
    async with keep_running(_program(POLITE, log), log, _settings(tmp_path)) as process:
        await process.serving()
        pid = process.pid
        process.kill(signal.SIGSTOP)
        await asyncio.sleep(0.1)
        assert process.pid == pid
    assert not _alive(pid)


def test_a_process_of_the_tests_counts_as_alive() -> None:
    """The probe that the tests above rely on tells the living from the dead."""
    assert _alive(os.getpid())
    assert not _alive(2**22 + 1)
