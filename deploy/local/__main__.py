"""`python -m deploy.local up | down | status | demo`."""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deploy.local import callers, demo, state
from deploy.local.errors import AlreadyRunningError, StartError
from deploy.local.mesh import open_mesh
from deploy.local.services import serves
from deploy.local.settings import LocalSettings

_DOWN_POLL_S = 0.1
_INTERRUPTED = 130


def main() -> None:
    """Run the command; exits with 0 when done, 1 when it failed, 130 when interrupted and 2 for bad settings."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description="The mesh on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the mesh and keep it up until Ctrl-C or `down`")
    commands.add_parser("down", help="stop the mesh that `up` started")
    commands.add_parser("status", help="say what runs, and where")
    commands.add_parser("demo", help="start a mesh, ingest the samples, ask one question, stop")
    command = parser.parse_args().command
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    run = {"up": _up, "down": _down, "status": _status, "demo": _demo}[command]
    # Who interrupts `up` ends it as it is meant to end.
    interrupted = 0 if command == "up" else _INTERRUPTED
    try:
        sys.exit(asyncio.run(_until_signalled(run(_settings()), interrupted)))
    except StartError as error:
        sys.exit(str(error))


def _settings() -> LocalSettings:
    try:
        return LocalSettings()
    except ValidationError as error:
        prefix = LocalSettings.model_config["env_prefix"]
        for wrong in error.errors():
            variable = prefix + "__".join(str(part) for part in wrong["loc"]).upper()
            print(f"{variable}: {wrong['msg']}", file=sys.stderr)
        sys.exit(2)


async def _until_signalled(command: Coroutine[Any, Any, int], interrupted: int) -> int:
    """Run the command; the first SIGTERM or Ctrl-C cancels it, which drains the mesh, and a second hurries that.

    Returns the command's exit code, or `interrupted`.
    """
    task = asyncio.ensure_future(command)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        return await task
    return interrupted


async def _up(settings: LocalSettings) -> int:
    try:
        async with open_mesh(settings, _say) as mesh:
            _say("\n" + callers.describe(mesh, str(settings.data_dir), str(Path(sys.executable).parent)))
            try:
                await asyncio.Event().wait()
            finally:
                _say("draining")
    except AlreadyRunningError as running:
        _say(str(running))
        return 0
    return 0


async def _demo(settings: LocalSettings) -> int:
    return await demo.run(settings, _say)


async def _down(settings: LocalSettings) -> int:
    data = settings.data_dir.resolve()
    pid = state.owner(data)
    if pid is None:
        _say("no mesh is running")
        return 0
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + settings.drain_timeout_s + 7 * settings.stop_timeout_s
    while state.owner(data) == pid:
        if time.monotonic() > deadline:
            _say(f"process {pid} does not end")
            return 1
        await asyncio.sleep(_DOWN_POLL_S)
    _say("stopped")
    return 0


async def _status(settings: LocalSettings) -> int:
    data = settings.data_dir.resolve()
    if state.owner(data) is None:
        _say("no mesh is running")
        return 1
    described = state.published(data)
    if not described:
        _say("the mesh is starting")
        return 1
    healthy = True
    for name, address in {"edge": described["edge"], **described["services"]}.items():
        serving = await serves(address)
        healthy &= serving
        _say(f"{name:<10} {address:<16} {'serves' if serving else 'does not serve'}")
    return 0 if healthy else 1


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
