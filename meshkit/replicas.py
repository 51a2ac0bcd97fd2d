"""The replicas of a peer: a channel to each of its addresses, as addresses come and go."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from meshkit.channel import MeshChannel

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
_Caller = TypeVar("_Caller")

logger = logging.getLogger(__name__)

_NAME = "dns:///"


@dataclass(frozen=True, slots=True)
class Following:
    """How a name's addresses are followed: asked for every `interval_s`, each time for at most `timeout_s`.

    The calls to an address that is gone have `drain_s` to end.
    """

    interval_s: float
    timeout_s: float
    drain_s: float


def is_several(target: str) -> bool:
    """Whether the target may be more than one address: a list with commas, or `dns:///host:port`."""
    return "," in target or target.startswith(_NAME)


def parts(target: str) -> list[str]:
    """The addresses and names of the target; raises ValueError where one is empty or a name lacks its port."""
    found = [part.strip() for part in target.split(",")]
    for part in found:
        if not part:
            raise ValueError("an address is empty")
        if part.startswith(_NAME):
            _host_and_port(part)
    return list(dict.fromkeys(found))


def _host_and_port(name: str) -> tuple[str, int]:
    host, _, port = name.removeprefix(_NAME).rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{name} is not of the form {_NAME}host:port")
    return host.strip("[]"), int(port)


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of the host, `ip:port`; raises OSError where it has none or cannot be asked for."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [f"[{ip}]:{port}" if ":" in str(ip) else f"{ip}:{port}" for _, _, _, _, (ip, *_) in found]


class Replicas(Generic[_Caller]):
    """What calls each replica, one over each channel; opened and closed by `open_replicas`.

    `present` are those that have an address now. Only `follow` and `close` change what is held.
    """

    def __init__(
        self,
        target: str,
        make_channel: Callable[[str], MeshChannel],
        make_caller: Callable[[str, MeshChannel], _Caller],
        following: Following,
        resolve: Resolve,
    ) -> None:
        """A caller for each address of the target, as soon as it is followed; raises ValueError for a bad target."""
        self.present: Sequence[_Caller] = ()
        self._make_channel = make_channel
        self._make_caller = make_caller
        self._following = following
        self._resolve = resolve
        # What was found last for each part: a name that cannot be resolved for a while keeps its addresses.
        self._addresses = {part: [] if part.startswith(_NAME) else [part] for part in parts(target)}
        self._held: dict[str, tuple[MeshChannel, _Caller]] = {}
        self._draining: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> list[str]:
        """The parts of the target that are to be resolved."""
        return [part for part in self._addresses if part.startswith(_NAME)]

    async def follow(self) -> None:
        """Resolve the names; open what is new, and close what is gone once its calls have ended."""
        for name in self.names:
            try:
                async with asyncio.timeout(self._following.timeout_s):
                    found = await self._resolve(*_host_and_port(name))
            except (OSError, UnicodeError) as error:
                logger.warning("%s cannot be resolved: %r", name, error)
            else:
                self._addresses[name] = list(found) or self._addresses[name]
        self._hold(dict.fromkeys(address for found in self._addresses.values() for address in found))

    def _hold(self, addresses: Iterable[str]) -> None:
        for address in self._held.keys() - addresses:
            channel, _ = self._held.pop(address)
            logger.info("%s is gone", address)
            task = asyncio.create_task(self._drain(channel))
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)
        for address in addresses:
            if address not in self._held:
                channel = self._make_channel(address)
                self._held[address] = channel, self._make_caller(address, channel)
        self.present = tuple(caller for _, caller in self._held.values())

    async def _drain(self, channel: MeshChannel) -> None:
        try:
            async with asyncio.timeout(self._following.drain_s):
                await channel.idle()
        except TimeoutError:
            logger.warning("calls to a replica that is gone do not end: they are cancelled")
        finally:
            await channel.close()

    async def follow_for_ever(self) -> None:
        """Follow the names at the interval."""
        while True:
            await asyncio.sleep(self._following.interval_s)
            await self.follow()

    async def close(self) -> None:
        """Close every channel, cancelling what calls it has."""
        self.present = ()
        draining = list(self._draining)
        for task in draining:
            task.cancel()
        await asyncio.gather(
            *draining, *(channel.close() for channel, _ in self._held.values()), return_exceptions=True
        )


@asynccontextmanager
async def open_replicas(
    target: str,
    make_channel: Callable[[str], MeshChannel],
    make_caller: Callable[[str, MeshChannel], _Caller],
    following: Following,
    resolve: Resolve = resolve,
) -> AsyncIterator[Replicas[_Caller]]:
    """The replicas at `target`, a list with commas of addresses and of names `dns:///host:port`.

    Names are resolved once before the body, and then over and over; there may be none at first.
    """
    replicas = Replicas(target, make_channel, make_caller, following, resolve)
    tasks: list[asyncio.Task[None]] = []
    try:
        await replicas.follow()
        if replicas.names:
            tasks.append(asyncio.create_task(replicas.follow_for_ever()))
        yield replicas
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await replicas.close()
