"""Ends vLLM's engine process with the process that started it, which a killed process cannot do itself.

vLLM loads `follow_parent` into each of its processes, as a plugin (pyproject.toml, `vllm.general_plugins`).
"""

import ctypes
import os
import signal

_VARIABLE = "RAGMESH_ENGINE_PARENT"
_PR_SET_PDEATHSIG = 1


def lead() -> None:
    """Make the processes that this one starts follow it, where they load the plugin."""
    os.environ[_VARIABLE] = str(os.getpid())


def follow_parent() -> None:
    """Have the kernel (Linux) kill this process when the one that led it ends."""
    leader = os.environ.get(_VARIABLE)
    if leader is None or int(leader) != os.getppid():
        # The leader itself, or a vLLM that ragmesh did not start.
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(leader):
        os.kill(os.getpid(), signal.SIGKILL)
