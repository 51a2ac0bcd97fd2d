"""An engine's process does not outlive the one that started it."""

import subprocess
import sys
import time
from importlib import metadata

import psutil

LEADER = """
import subprocess, sys
from generator_svc import orphans
orphans.lead()
child = subprocess.Popen([sys.executable, "-c", '''
import time
from generator_svc.orphans import follow_parent
follow_parent()
print("following", flush=True)
time.sleep(60)
'''])
print(child.pid, flush=True)
child.wait()
"""


def test_a_killed_leader_takes_its_followers_along() -> None:
    """The kernel ends the child at once, although the leader had no time to."""
    with subprocess.Popen([sys.executable, "-c", LEADER], stdout=subprocess.PIPE, text=True) as leader:
        assert leader.stdout
        child = int(leader.stdout.readline())
        assert leader.stdout.readline() == "following\n"
        leader.kill()
        leader.wait(timeout=5)
        ends_s = time.monotonic() + 5
        while _runs(child) and time.monotonic() < ends_s:
            time.sleep(0.01)

    assert not _runs(child)


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
