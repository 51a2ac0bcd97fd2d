"""Three real generator servers, each behind a cable that can be cut, and the gateway's generator over them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from gateway.app import Generators, open_generators
from gateway.generation import Chat, Delta, Ending, Generation, Message, Writing
from gateway.settings import ReplicaSettings, Settings
from meshkit import identity
from meshkit.replicas import Resolve, resolve
from tests.gateway.cable import Cable, open_cable
from tests.gateway.conftest import ALICE
from tests.generator_svc.doubles import PacedEngine
from tests.generator_svc.serving import served

KNOBS = ReplicaSettings(poll_s=0.05, poll_timeout_s=10.0, cooldown_s=0.5, cooldown_max_s=1.0, resolve_s=0.05)
SESSIONS = [f"s{number}" for number in range(64)]
PROMPT = Chat((Message("user", "hello"),))


def generation(max_tokens: int = 100, session: str = "", model: str = "paced") -> Generation:
    """A generation of so many tokens."""
    return Generation(model, PROMPT, Writing(), max_tokens, session)


class Replica:
    """A server of its own engine and the cable to it."""

    def __init__(self, cable: Cable, stack: AsyncExitStack, model: str = "paced", **settings: Any) -> None:
        self.engine = PacedEngine()
        self.engine.card = replace(self.engine.card, model=model)
        self.cable = cable
        self._stack = stack
        self._settings = settings

    async def start(self) -> None:
        """Serve, at the same address as before."""
        self.cable.target = await self._stack.enter_async_context(served(self.engine, **self._settings))

    async def drain(self) -> None:
        """Stop as a server does on SIGTERM."""
        await self._stack.aclose()

    @property
    def running(self) -> int:
        """Its generations."""
        return len(self.engine.running)


class World:
    """Replicas, the generator over them, and the generations that the test has under way."""

    def __init__(self, replicas: Sequence[Replica], generators: Generators, stack: AsyncExitStack) -> None:
        self.replicas = replicas
        self.generators = generators
        self.generator = generators.generator
        self._stack = stack

    async def begin(self, made: Generation) -> AsyncIterator[Delta]:
        """A generation that has answered; it goes on until the test's end."""
        deltas = await self._stack.enter_async_context(self.generator.generate(made))
        await anext(deltas)
        return deltas

    async def leave(self) -> None:
        """Leave the generations under way."""
        await self._stack.aclose()

    async def whole(self, made: Generation) -> int:
        """How many tokens a generation has that is read to its end."""
        async with self.generator.generate(made) as deltas:
            said = [delta async for delta in deltas]
        assert said[-1].ending is Ending.LENGTH
        return len(said)

    async def taker(self, session: str) -> Replica:
        """The replica that takes the session's turn."""
        before = [len(replica.engine.asked) for replica in self.replicas]
        async with self.generator.generate(generation(session=session)) as deltas:
            await anext(deltas)
            asked = zip(self.replicas, before, strict=True)
            taken = [
                (r, new.key) for r, count in asked for new in r.engine.asked[count:] if new.key in r.engine.running
            ]
            ((taker, key),) = taken
        await until(lambda: key not in taker.engine.running)
        return taker

    async def session_of(self, replica: Replica) -> str:
        """A session whose own replica it is."""
        for session in SESSIONS:
            if await self.taker(session) is replica:
                return session
        raise AssertionError("no session is its own")


async def until(happened: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    """Wait for it, for some seconds at most."""
    async with asyncio.timeout(10):
        while True:
            answer = happened()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def open_replica(**settings: Any) -> AsyncIterator[Replica]:
    """A replica that serves."""
    async with open_cable("") as cable, AsyncExitStack() as stack:
        replica = Replica(cable, stack, **settings)
        await replica.start()
        yield replica


@asynccontextmanager
async def open_world(*each: dict[str, Any], knobs: ReplicaSettings = KNOBS) -> AsyncIterator[World]:
    """As many replicas as there are settings for them, named by their addresses."""
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(open_replica(**settings)) for settings in each]
        target = ",".join(replica.cable.address for replica in replicas)
        yield await stack.enter_async_context(open_generators_over(replicas, target, resolve, knobs))


@asynccontextmanager
async def open_generators_over(
    replicas: Sequence[Replica], target: str, resolve: Resolve, knobs: ReplicaSettings = KNOBS
) -> AsyncIterator[World]:
    """The generator over a target's replicas."""
    settings = Settings(generator_target=target, replicas=knobs)
    async with AsyncExitStack() as stack:
        stack.enter_context(identity.acting_as(ALICE))
        generators = await stack.enter_async_context(open_generators(settings, resolve))
        await generators.generator.list_models()
        yield World(replicas, generators, await stack.enter_async_context(AsyncExitStack()))
