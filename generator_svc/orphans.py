"""Ends vLLM's engine process with the process that started it, which a killed process cannot do itself.

vLLM loads `follow_parent` into each of its processes, as a plugin (pyproject.toml, `vllm.general_plugins`).
"""

import asyncio
import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import TypeVar

_VARIABLE = "RAGMESH_ENGINE_PARENT"
_PR_SET_PDEATHSIG = 1
_KILL_INTERVAL_S = 0.1

_Engine = TypeVar("_Engine")


def lead() -> None:
    """Make the processes that this one starts follow it, where they load the plugin."""
    os.environ[_VARIABLE] = str(os.getpid())


def follow_parent() -> None:
    """Have the kernel (Linux) kill this process when the one that led it ends, and leave it the signals of a terminal.

    The kernel goes by the thread that made the process, not by its whole process: that thread must last.
    """
    leader = os.environ.get(_VARIABLE)
    if leader is None or int(leader) != os.getppid():
        # The leader itself, or a vLLM that ragmesh did not start.
        return
    # A signal to the leader's whole group is the leader's to answer: an engine that got it, too, would refuse the
    # requests that the leader still holds.
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(leader):
        os.kill(os.getpid(), signal.SIGKILL)


async def started(start: Callable[[], _Engine], shut_down: Callable[[_Engine], None]) -> _Engine:
    """What `start` makes, in a thread that lasts as long as the loop's executor.

    When this is cancelled, the processes that `start` has made are killed, and what it makes nevertheless is shut
    down, before the cancellation goes on.
    """
    starting = asyncio.ensure_future(asyncio.to_thread(start))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # It cannot be told to end, but it does when its processes have died.
        while not starting.done():
            for process in multiprocessing.active_children():
                process.kill()
            await asyncio.wait([starting], timeout=_KILL_INTERVAL_S)
        if not starting.cancelled() and starting.exception() is None:
            await asyncio.to_thread(shut_down, starting.result())
        raise
