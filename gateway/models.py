"""Which model writes an answer."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from gateway.generation import Generator, Model
from meshkit.errors import MeshError, not_found


class Models:
    """The generator's models, never older than `ttl_s` seconds of `clock`; made and closed by `open_models`.

    A question that finds them more than half as old has them asked for in the background, so that while questions
    keep coming none of them waits for the models. One task at a time does so.
    """

    def __init__(self, generator: Generator, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._generator = generator
        self._ttl_s = ttl_s
        self._clock = clock
        self._known: Sequence[Model] = ()
        self._fresh_until_s = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def list(self) -> Sequence[Model]:
        """The models, the default one first; raises Unavailable PEER_UNAVAILABLE."""
        self._known = await self._generator.list_models()
        self._fresh_until_s = self._clock() + self._ttl_s
        return self._known

    async def choose(self, name: str) -> Model:
        """The model of that name, the default one for ""; raises NotFound MODEL_NOT_FOUND."""
        left_s = self._fresh_until_s - self._clock()
        known = self._known if left_s > 0 else await self.list()
        if 0 < left_s < self._ttl_s / 2:
            self._ask_ahead()
        chosen = _named(name, known) or _named(name, await self.list())
        if chosen is None:
            raise not_found("model", name, "MODEL_NOT_FOUND")
        return chosen

    async def close(self) -> None:
        """Ask no more."""
        if self._asking:
            self._asking.cancel()
            await asyncio.wait({self._asking})

    def _ask_ahead(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._try_to_list())

    async def _try_to_list(self) -> None:
        # Where this fails, a question that finds nothing fresh hears why.
        with suppress(MeshError):
            await self.list()


@asynccontextmanager
async def open_models(generator: Generator, ttl_s: float) -> AsyncIterator[Models]:
    """The models for the body."""
    models = Models(generator, ttl_s)
    try:
        yield models
    finally:
        await models.close()


def _named(name: str, models: Sequence[Model]) -> Model | None:
    return next((model for model in models if name in ("", model.name)), None)
