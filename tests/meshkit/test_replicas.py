"""Channels to replicas, over a name whose addresses the test changes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import pytest

from meshkit.channel import MeshChannel, make_channel
from meshkit.replicas import Following, Replicas, is_several, open_replicas, parts, resolve
from meshkit.testing import serve
from tests.meshkit.probe import ALICE, Echo, app_of

FOLLOWING = Following(interval_s=0.02, timeout_s=0.05, drain_s=10.0)
NAME = "dns:///replicas.test:50053"


class Names:
    """Answers with the addresses that it is given, or fails; a None among the answers waits for ever."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] | OSError | None = addresses
        self._asked = asyncio.Condition()
        self._count = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        assert (host, port) == ("replicas.test", 50053)
        async with self._asked:
            self._count += 1
            self._asked.notify_all()
        if self.addresses is None:
            await asyncio.Event().wait()
        if isinstance(self.addresses, OSError):
            raise self.addresses
        return self.addresses or ()

    async def change(self, addresses: Sequence[str] | OSError | None) -> None:
        """Answer with these from now on; returns when the answer has been taken."""
        self.addresses = addresses
        async with self._asked:
            seen = self._count + 2
            await self._asked.wait_for(lambda: self._count > seen)


def caller(address: str, channel: MeshChannel) -> tuple[str, MeshChannel]:
    """The address and the channel as they are."""
    return address, channel


@asynccontextmanager
async def opened(target: str, names: Names | None = None) -> AsyncIterator[Replicas[tuple[str, MeshChannel]]]:
    """The replicas of the target, whose calls act for ALICE."""
    make = partial(make_channel, identity=ALICE)
    async with open_replicas(target, make, caller, FOLLOWING, names or resolve) as replicas:
        yield replicas


def addresses(replicas: Replicas[tuple[str, MeshChannel]]) -> set[str]:
    """The addresses present."""
    return {address for address, _ in replicas.present}


async def test_list_is_taken_as_it_stands() -> None:
    """Each address has one channel, however often it is named; nothing is resolved and no task runs."""
    before = asyncio.all_tasks()
    async with opened("10.0.0.1:50053, 10.0.0.2:50053,10.0.0.1:50053") as replicas:
        assert [address for address, _ in replicas.present] == ["10.0.0.1:50053", "10.0.0.2:50053"]
        assert asyncio.all_tasks() == before


async def test_name_and_address_together() -> None:
    """A list may hold names beside addresses."""
    names = Names("10.0.0.1:50053", "10.0.0.2:50053")
    async with opened(f"10.0.0.3:50053,{NAME}", names) as replicas:
        assert addresses(replicas) == {"10.0.0.1:50053", "10.0.0.2:50053", "10.0.0.3:50053"}


@pytest.mark.parametrize("failure", [OSError("no such name"), None, ()])
async def test_addresses_outlive_a_failing_resolver(failure: OSError | tuple[()] | None) -> None:
    """While a name has no answer, or an empty one, its addresses stay; later answers count again."""
    names = Names("10.0.0.1:50053")
    async with opened(NAME, names) as replicas:
        await names.change(failure)
        assert addresses(replicas) == {"10.0.0.1:50053"}
        await names.change(["10.0.0.2:50053"])
        assert addresses(replicas) == {"10.0.0.2:50053"}


async def test_name_that_cannot_be_resolved_yet() -> None:
    """There are no replicas until the name has an address."""
    names = Names()
    async with opened(NAME, names) as replicas:
        assert not replicas.present
        await names.change(["10.0.0.1:50053"])
        assert addresses(replicas) == {"10.0.0.1:50053"}


async def test_replica_that_stays_keeps_its_channel() -> None:
    """Only what comes is opened."""
    names = Names("10.0.0.1:50053")
    async with opened(NAME, names) as replicas:
        ((_, channel),) = replicas.present
        await names.change(["10.0.0.2:50053", "10.0.0.1:50053"])
        assert dict(replicas.present)["10.0.0.1:50053"] is channel


async def test_replica_that_is_gone_is_closed_when_its_calls_end(wire: Any) -> None:
    """A call under way goes on as if nothing had happened; then the channel is closed."""
    async with serve(app_of(wire, Echo(wire))) as address:
        names = Names(address)
        async with opened(NAME, names) as replicas:
            ((_, channel),) = replicas.present
            requests: asyncio.Queue[Any] = asyncio.Queue()
            call = wire.ProbeServiceStub(channel).Chat(_from(requests))
            await requests.put(wire.ProbeRequest(text="a"))
            assert (await anext(aiter(call))).text == "a"
            await names.change(["10.0.0.2:50053"])
            assert addresses(replicas) == {"10.0.0.2:50053"}
            await requests.put(None)
            assert await call.code() is grpc.StatusCode.OK
            async with asyncio.timeout(5):
                while channel.get_state() is not grpc.ChannelConnectivity.SHUTDOWN:
                    await asyncio.sleep(0.01)


async def test_close_ends_what_is_still_draining(wire: Any) -> None:
    """Calls to replicas that are gone do not hold the end up."""
    async with serve(app_of(wire, Echo(wire))) as address:
        names = Names(address)
        async with opened(NAME, names) as replicas:
            ((_, channel),) = replicas.present
            requests: asyncio.Queue[Any] = asyncio.Queue()
            call = wire.ProbeServiceStub(channel).Chat(_from(requests))
            await requests.put(wire.ProbeRequest(text="a"))
            assert (await anext(aiter(call))).text == "a"
            await names.change(["10.0.0.2:50053"])
        assert await call.code() is grpc.StatusCode.CANCELLED


async def _from(queue: "asyncio.Queue[Any]") -> AsyncIterator[Any]:
    while (request := await queue.get()) is not None:
        yield request


async def test_resolver_of_the_system() -> None:
    """An address of this machine is found, in the form that channels take."""
    assert "127.0.0.1:50053" in await resolve("localhost", 50053)
    assert await resolve("::1", 50053) == ["[::1]:50053"]


@pytest.mark.parametrize(
    ("target", "several"),
    [("10.0.0.1:50053", False), ("unix:/run/generator", False), ("a:1,b:1", True), ("dns:///a:1", True)],
)
def test_what_may_be_several(target: str, several: bool) -> None:
    """A list or a name; any other gRPC name is one address."""
    assert is_several(target) is several


@pytest.mark.parametrize("target", ["", "a:1,,b:1", "dns:///a", "dns:///:1", "dns:///a:b"])
def test_bad_target(target: str) -> None:
    """What cannot be called is refused."""
    with pytest.raises(ValueError, match=r"empty|form"):
        parts(target)
