"""Which process runs a data folder's mesh, and where: a lock that dies with its holder, and a file for callers."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.local.errors import AlreadyRunningError

_LOCK = "mesh.pid"
_STATE = "mesh.json"


@contextmanager
def owned(data: Path) -> Iterator[None]:
    """Own the folder's mesh, which is made, for as long as the body runs; raises AlreadyRunningError."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / _LOCK).open("a+") as lock:
        if not _locked(lock.fileno()):
            raise AlreadyRunningError(_where(data))
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield
        finally:
            (data / _STATE).unlink(missing_ok=True)
            lock.truncate(0)


def owner(data: Path) -> int | None:
    """The process id of the folder's mesh; None where none runs, however its last one ended."""
    try:
        with (data / _LOCK).open("r+") as lock:
            return None if _locked(lock.fileno()) else int(lock.read() or 0) or None
    except FileNotFoundError:
        return None


def publish(data: Path, state: dict[str, Any]) -> None:
    """Say where the mesh is, whole or not at all."""
    partial = data / f".{_STATE}.partial"
    partial.write_text(json.dumps(state, indent=2) + "\n")
    partial.replace(data / _STATE)


def published(data: Path) -> dict[str, Any]:
    """Where the mesh is; empty while it starts or does not run."""
    try:
        return dict(json.loads((data / _STATE).read_text()))
    except FileNotFoundError:
        return {}


def _where(data: Path) -> str:
    edge = published(data).get("edge")
    return f"the mesh of {data} is already running" + (f" at http://{edge}" if edge else " (it is starting)")


def _locked(descriptor: int) -> bool:
    """Take the lock, which is given back when the descriptor is closed; whether it was free."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
