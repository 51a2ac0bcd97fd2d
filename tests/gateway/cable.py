"""A connection between two processes that a test can cut, as a crash does, and mend."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Cable:
    """Carries bytes from `address` to `target`; opened and closed by `open_cable`."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.address = ""
        self._server: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.StreamWriter] = set()

    async def plug(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    def cut(self) -> None:
        """Break every connection; new ones are broken at once until there is a target again."""
        self.target = ""
        for end in self._ends:
            end.transport.abort()

    async def unplug(self) -> None:
        assert self._server
        # asyncio forgets a connection whose server closes between its acceptance and its task: take no more of them,
        # and let those taken come so far, before it closes.
        for listening in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        await self._break()
        self._server.close()
        await self._break()

    async def _break(self) -> None:
        """Cut what is there and what is on its way: it takes some turns of the loop to come, and to be closed."""
        for _ in range(10):
            self.cut()
            await asyncio.gather(*self._carrying)
            await asyncio.sleep(0)

    async def _carry(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._carrying.add(task)
        self._ends.add(near)
        try:
            with suppress(OSError, ValueError):
                host, _, port = self.target.rpartition(":")
                far_reader, far = await asyncio.open_connection(host, int(port))
                self._ends.add(far)
                await asyncio.gather(_pump(near_reader, far), _pump(far_reader, near))
        finally:
            near.transport.abort()
            self._carrying.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.transport.abort()


@asynccontextmanager
async def open_cable(target: str) -> AsyncIterator[Cable]:
    """A cable to the target; cut when the body ends."""
    cable = Cable(target)
    await cable.plug()
    try:
        yield cable
    finally:
        await cable.unplug()
