"""Which model writes an answer."""

import time
from collections.abc import Sequence

from gateway.generation import Generator, Model
from meshkit.errors import not_found


class Models:
    """The generator's models, asked for again after `ttl_s`; lives as long as the process."""

    def __init__(self, generator: Generator, ttl_s: float) -> None:
        self._generator = generator
        self._ttl_s = ttl_s
        self._known: Sequence[Model] = ()
        self._fresh_until_s = 0.0

    async def list(self) -> Sequence[Model]:
        """The models, the default one first; raises Unavailable PEER_UNAVAILABLE."""
        self._known = await self._generator.list_models()
        self._fresh_until_s = time.monotonic() + self._ttl_s
        return self._known

    async def choose(self, name: str) -> Model:
        """The model of that name, the default one for ""; raises NotFound MODEL_NOT_FOUND."""
        known = self._known if time.monotonic() < self._fresh_until_s else await self.list()
        chosen = _named(name, known) or _named(name, await self.list())
        if chosen is None:
            raise not_found("model", name, "MODEL_NOT_FOUND")
        return chosen


def _named(name: str, models: Sequence[Model]) -> Model | None:
    return next((model for model in models if name in ("", model.name)), None)
