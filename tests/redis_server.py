"""A real redis-server on a free port, for tests of what is kept in Redis."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from deploy.local import redis_server

_START_S = 10.0


class RedisServer:
    """A redis-server with an append-only file in `folder`; it can be killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = f"--port {self.port} --bind 127.0.0.1 --dir {self._folder} --appendonly yes --save"
        log = (self._folder / "redis.log").open("ab")
        with log:
            self._process = subprocess.Popen([redis_server.binary(), *options.split(), ""], stdout=log, stderr=log)
        self._wait()

    def kill(self) -> None:
        """End the server as a crash would; what it acknowledged stays in its file."""
        if self._process:
            self._process.kill()
            self._process.wait(timeout=_START_S)
            self._process = None

    def _wait(self) -> None:
        limit = time.monotonic() + _START_S
        with redis.Redis(port=self.port) as client:
            while time.monotonic() < limit:
                try:
                    client.ping()
                except redis.ConnectionError:
                    time.sleep(0.01)
                else:
                    return
        raise TimeoutError("redis-server did not start")


@contextmanager
def open_redis_server(folder: Path) -> Iterator[RedisServer]:
    """A running server, killed when the body ends."""
    server = RedisServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
