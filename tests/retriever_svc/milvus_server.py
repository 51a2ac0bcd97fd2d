"""A Milvus server: Milvus Lite in a process of its own, which can be killed and is started again."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local.settings import HOST, LocalSettings
from deploy.local.supervisor import Process, Program, keep_running


@dataclass(frozen=True, slots=True)
class MilvusServer:
    """The server's address and process."""

    uri: str
    process: Process


@asynccontextmanager
async def open_milvus_server(folder: Path) -> AsyncIterator[MilvusServer]:
    """A server that keeps its data in the folder, and is kept running while the body runs."""
    port = _free_port()
    milvus = Path(sys.executable).with_name("milvus-lite")
    where = ["--data-dir", str(folder / "milvus"), "--host", HOST, "--port", str(port)]

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            return False
        writer.close()
        return True

    program = Program("milvus", [str(milvus), "server", *where], listens)
    async with keep_running(program, folder / "milvus.log", LocalSettings(data_dir=folder)) as process:
        await process.serving()
        yield MilvusServer(f"http://{HOST}:{port}", process)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])
