"""Vectors that were made before: their keys, their form in a store, and what the store must do."""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from embedder_svc.breaker import BreakerState
from embedder_svc.encoding import EncoderCard, Length, Task, Vectors

# A new form of key or value takes a new number; what has the old one is never read and runs out.
_VERSION = 1
_DIGEST_BYTES = 32

# Tokens, whether the text was cut, and three bytes that keep the numbers behind them aligned.
_HEAD = struct.Struct("<I?3x")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text's whole vector ([dimension], unit length) and its length as encoded."""

    vector: Vectors
    length: Length


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """The bounds of a cache.

    A look-up of a few texts takes `read_timeout_s` at most, a write, for which nobody waits, `write_timeout_s`.
    Beyond `max_pending_bytes` of values that wait to be written, more are dropped. After `max_failures` in a row
    the store is left alone for `open_s`.
    """

    ttl_s: int
    read_timeout_s: float
    write_timeout_s: float
    max_pending_bytes: int
    max_failures: int
    open_s: float
    max_connections: int


@dataclass(slots=True)
class CacheCounts:
    """What a cache has done: texts found and not found, requests that failed, vectors not written."""

    hits: int = 0
    misses: int = 0
    errors: int = 0
    dropped: int = 0


class EmbeddingCache(Protocol):
    """A store of bytes that costs its callers nothing but hits where it is slow or away."""

    @property
    def counts(self) -> CacheCounts:
        """What it has done so far."""

    @property
    def state(self) -> BreakerState:
        """Whether the store is asked."""

    async def get(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """What each key holds, in order; None for what is not there, or does not come in time. Never raises."""

    def put(self, values: Mapping[str, bytes]) -> None:
        """Keep the values for a while; returns at once, and they may be lost."""


class Memory:
    """The vectors of one encoder in a cache that outlives it; nothing to close.

    The recipe is what an operator's settings have changed about the model.
    """

    def __init__(self, cache: EmbeddingCache, card: EncoderCard, recipe: str) -> None:
        self._cache = cache
        self._card = card
        self._recipe = recipe

    async def find(self, tenant: str, task: Task, texts: Sequence[str]) -> dict[str, Encoded]:
        """What is known of the texts."""
        values = await self._cache.get(self._keys(tenant, task, texts))
        found = [unpack(value, self._card.dimension) for value in values]
        return {text: encoded for text, encoded in zip(texts, found, strict=True) if encoded}

    def keep(self, tenant: str, task: Task, made: Mapping[str, Encoded]) -> None:
        """Have it known for the next call; costs this one no wait."""
        keys = self._keys(tenant, task, list(made))
        self._cache.put({key: pack(encoded) for key, encoded in zip(keys, made.values(), strict=True)})

    def _keys(self, tenant: str, task: Task, texts: Sequence[str]) -> list[str]:
        return cache_keys(self._card, self._recipe, tenant, task, texts)


def cache_keys(card: EncoderCard, recipe: str, tenant: str, task: Task, texts: Sequence[str]) -> list[str]:
    """The key of each text: equal only where encoder, recipe, task, text and tenant are.

    The recipe is what an operator's settings have changed about the model. A key holds the encoder's dimension,
    not the one asked for: the whole vector is kept and serves every Matryoshka cut. A vector is the same for
    every tenant, but whether it is there, which its time tells, would let a tenant guess another's texts.
    """
    parts = (card.name, card.revision, card.backend, recipe, str(card.max_tokens), str(card.dimension), task.value)
    common = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        # Each with its length before it: no two lists of parts have the same bytes.
        common.update(len(part.encode()).to_bytes(8, "little") + part.encode())
    return [f"ragmesh:{tenant}:embedding:{_VERSION}:{_digest(common, text)}" for text in texts]


def _digest(common: "hashlib.blake2b", text: str) -> str:
    whole = common.copy()
    whole.update(text.encode())
    return whole.hexdigest()


def pack(encoded: Encoded) -> bytes:
    """The numbers exactly as the encoder gave them, so that a hit is a miss to the last bit."""
    head = _HEAD.pack(encoded.length.tokens, encoded.length.truncated)
    return head + encoded.vector.astype("<f4").tobytes()


def unpack(value: bytes | None, dimension: int) -> Encoded | None:
    """What was packed; None for nothing, and for what no encoder of this dimension has packed."""
    if value is None or len(value) != _HEAD.size + 4 * dimension:
        return None
    tokens, truncated = _HEAD.unpack_from(value)
    vector = np.frombuffer(value, dtype="<f4", offset=_HEAD.size)
    return Encoded(vector, Length(tokens, truncated))
