"""The generator as its replicas: each call goes to the best one, and on to the next while none has answered."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

from gateway.balancing import Standing, Work, choose, is_overloaded
from gateway.generation import Chat, Delta, Generation, Generator, Model
from meshkit.errors import MeshError, Unavailable

logger = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")


class ReplicaGenerator(Generator, Protocol):
    """A generator that can be asked for its load; its `generate` begins with the first delta at hand."""

    async def outstanding_tokens(self) -> float:
        """The tokens that it has yet to make, for all of its callers."""
        ...


class Replica:
    """A replica: what calls it, how it stands, and the models that it said it has; lives as long as its channel."""

    def __init__(self, standing: Standing, generator: ReplicaGenerator) -> None:
        self.standing = standing
        self.generator = generator
        self.models: Sequence[Model] = ()

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncIterator[AsyncIterator[Delta]]:
        """As `Generator.generate`; the body begins when the replica has answered."""
        with self.standing.working(generation.max_tokens) as work:
            async with (
                self.generator.generate(generation) as deltas,
                aclosing(self._counted(deltas, work)) as counted,
            ):
                self.standing.answered()
                yield counted

    async def _counted(self, deltas: AsyncIterator[Delta], work: Work) -> AsyncGenerator[Delta, None]:
        try:
            async for delta in deltas:
                # An upstream that does not count its tokens sends about one a delta.
                work.made(delta.token_count or int(bool(delta.text)))
                if delta.ending:
                    # Before the replica's own report, which counts it no longer.
                    work.end()
                yield delta
        except MeshError as error:
            self.standing.failed(error)
            raise

    async def refresh(self, timeout_s: float) -> None:
        """Ask what the replica has and how it stands; one that is not ready, or not in time, has failed."""
        try:
            async with asyncio.timeout(timeout_s):
                self.models = await self.generator.list_models()
                self.standing.reported(await self.generator.outstanding_tokens())
        except Exception as error:
            # It is asked again, whatever it was.
            if not isinstance(error, MeshError | TimeoutError):
                logger.exception("replica %s cannot be asked", self.standing.name)
            self.standing.failed(_unanswered())
        else:
            if any(model.ready for model in self.models):
                self.standing.answered()
            else:
                self.standing.failed(_unanswered())

    def serves(self, model: str) -> bool:
        """Whether it said that it has the model."""
        return any(each.name == model for each in self.models)

    def known(self) -> Iterator[Model]:
        """The models that it said it has; none is ready while it is left alone."""
        for model in self.models:
            yield replace(model, ready=model.ready and not self.standing.cooling)


@asynccontextmanager
async def open_balanced_generator(
    replicas: Callable[[], Sequence[Replica]], interval_s: float, timeout_s: float
) -> AsyncIterator["BalancedGenerator"]:
    """The generator over the replicas of now, which are asked how they stand while there is a choice of them."""
    generator = BalancedGenerator(replicas, timeout_s)
    refreshing = asyncio.create_task(_refresh_for_ever(generator, replicas, interval_s))
    try:
        yield generator
    finally:
        refreshing.cancel()
        await asyncio.gather(refreshing, return_exceptions=True)


async def _refresh_for_ever(
    generator: "BalancedGenerator", replicas: Callable[[], Sequence[Replica]], interval_s: float
) -> None:
    while True:
        if len(replicas()) > 1:
            await generator.refresh()
        await asyncio.sleep(interval_s)


class BalancedGenerator:
    """A generator of several replicas, which come and go; owns nothing but what is known of them."""

    def __init__(self, replicas: Callable[[], Sequence[Replica]], timeout_s: float) -> None:
        """`replicas` are those of now; `timeout_s` is the time that one has to say how it stands."""
        self._replicas = replicas
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncIterator[AsyncIterator[Delta]]:
        """As `Generator.generate`; a replica that fails before its first delta leaves the call to the next one."""
        async with AsyncExitStack() as stack:

            async def begin(replica: Replica) -> AsyncIterator[Delta]:
                return await stack.enter_async_context(replica.generate(generation))

            yield await self._on_best(begin, generation.model, generation.session, generation.max_tokens)

    async def count_tokens(self, model: str, prompt: Chat) -> int:
        """As `Generator.count_tokens`."""
        return await self._on_best(lambda replica: replica.generator.count_tokens(model, prompt), model)

    async def list_models(self) -> Sequence[Model]:
        """The models of all replicas as they were said last; raises Unavailable where none is known."""
        replicas = self._replicas()
        if len(replicas) == 1 or not any(replica.models for replica in replicas):
            await self.refresh()
        models = _merged(model for replica in self._replicas() for model in replica.known())
        if not models:
            raise _unanswered()
        return models

    async def refresh(self) -> None:
        """Ask every replica how it stands; raises nothing that they do."""
        await asyncio.gather(*(replica.refresh(self._timeout_s) for replica in self._replicas()))

    async def _on_best(
        self, attempt: Callable[[Replica], Awaitable[_Answer]], model: str, session: str = "", tokens: int = 0
    ) -> _Answer:
        """The attempt on the best replica, else on the next best; raises the failure that is over first."""
        failures: list[MeshError] = []
        for replica in self._best_first(model, session, tokens):
            try:
                return await attempt(replica)
            except MeshError as error:
                replica.standing.failed(error)
                if not (isinstance(error, Unavailable) or is_overloaded(error)):
                    raise
                failures.append(error)
        raise min(failures, key=_retry_after_s, default=_unanswered())

    def _best_first(self, model: str, session: str, tokens: int) -> Iterator[Replica]:
        """The replicas that serve the model, or all where none is known to, each once and chosen when it is wanted."""
        tried: set[Standing] = set()
        while True:
            present = self._replicas()
            serving = [replica for replica in present if replica.serves(model)] or present
            left = {replica.standing: replica for replica in serving if replica.standing not in tried}
            if not left:
                return
            chosen = choose(tuple(left), session, tokens)
            tried.add(chosen)
            yield left[chosen]


def _retry_after_s(error: MeshError) -> float:
    return float("inf") if error.retry_after_s is None else error.retry_after_s


def _unanswered() -> Unavailable:
    message = "a service that this call needs does not answer"
    return Unavailable("PEER_UNAVAILABLE", message, metadata={"peer": "generator"})


def _merged(models: Iterable[Model]) -> list[Model]:
    """Each model once, as the first replica that is ready has it where there is one."""
    merged: dict[str, Model] = {}
    for model in models:
        if model.name not in merged or (model.ready and not merged[model.name].ready):
            merged[model.name] = model
    return list(merged.values())
