"""An engine's process does not outlive the one that started it."""

import asyncio
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from importlib import metadata
from multiprocessing.process import BaseProcess

import psutil
import pytest

from generator_svc import orphans

LEADER = """
import subprocess, sys
from generator_svc import orphans
orphans.lead()
child = subprocess.Popen([sys.executable, "-c", '''
import os, time
from generator_svc.orphans import follow_parent
follow_parent()
print("following", os.getpgid(0), flush=True)
time.sleep(60)
'''])
print(child.pid, flush=True)
child.wait()
"""


def test_a_killed_leader_takes_its_followers_along() -> None:
    """The kernel ends the child at once, although the leader had no time to; signals to its group spare the child."""
    with subprocess.Popen([sys.executable, "-c", LEADER], stdout=subprocess.PIPE, text=True) as leader:
        assert leader.stdout
        child = int(leader.stdout.readline())
        assert leader.stdout.readline() == f"following {child}\n"
        leader.kill()
        leader.wait(timeout=5)
        ends_s = time.monotonic() + 5
        while _runs(child) and time.monotonic() < ends_s:
            time.sleep(0.01)

    assert not _runs(child)


async def test_a_start_that_is_cancelled_leaves_nothing_behind() -> None:
    """Its process is killed, so that it ends at once; the cancellation goes on when it has."""
    processes: list[BaseProcess] = []

    def start() -> None:
        process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
        process.start()
        processes.append(process)
        process.join()
        raise RuntimeError("the engine's process ended")

    starting = asyncio.create_task(orphans.started(start, lambda _made: None))
    while not processes:
        await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert [process.exitcode for process in processes] == [-signal.SIGKILL]


async def test_what_a_cancelled_start_makes_nevertheless_is_shut_down() -> None:
    """The thread had nothing to kill and came to its end."""
    began, goes_on = threading.Event(), threading.Event()
    shut_down: list[str] = []

    def start() -> str:
        began.set()
        goes_on.wait(5)
        return "made"

    starting = asyncio.create_task(orphans.started(start, shut_down.append))
    await asyncio.to_thread(began.wait, 5)
    starting.cancel()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert shut_down == ["made"]


async def test_the_thread_of_a_start_lasts() -> None:
    """The kernel ends the process with the thread that made it, so the thread is still there, with nothing to do."""
    thread = await orphans.started(threading.current_thread, lambda _thread: None)

    assert thread is not threading.current_thread()
    assert thread.is_alive()


def test_vllm_loads_the_plugin() -> None:
    """The installed package offers it under the group that vLLM reads."""
    (plugin,) = metadata.entry_points(group="vllm.general_plugins", name="ragmesh")

    assert plugin.value == "generator_svc.orphans:follow_parent"


def _runs(pid: int) -> bool:
    """Whether the process has not ended; one that nobody has asked for its exit code yet has ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
