"""Which replica of the generator a generation goes to: its session's own, or the one with the least to do."""

import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b

from meshkit.errors import MeshError, ResourceExhausted, Unavailable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """How replicas are judged.

    A session leaves its own replica while that has more than `load_factor` times the mean to do, and an answer more.
    What a replica reported counts half after `report_half_life_s`. One that fails is left alone for `cooldown_s`,
    twice as long with each failure, at most `cooldown_max_s`; one with too much to do for `cooldown_s` at most.
    """

    load_factor: float = 1.25
    report_half_life_s: float = 2.0
    cooldown_s: float = 1.0
    cooldown_max_s: float = 30.0


class Standing:
    """What is known of a replica, for as long as it is one; belongs to one event loop.

    Its work is counted in tokens yet to be made: those of our own calls exactly, those of other callers as the
    replica reports them, and less as the report grows old.
    """

    def __init__(self, name: str, policy: Policy, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.policy = policy
        self.cooling_until_s = 0.0
        self._clock = clock
        self._own = 0
        self._others = 0.0
        self._reported_s = 0.0
        self._failures = 0

    @property
    def outstanding(self) -> float:
        """The tokens that the replica has yet to make."""
        age_s = self._clock() - self._reported_s
        return self._own + self._others * math.exp2(-age_s / self.policy.report_half_life_s)

    @property
    def cooling(self) -> bool:
        """Whether the replica is to be left alone."""
        return self._clock() < self.cooling_until_s

    @contextmanager
    def working(self, tokens: int) -> Iterator["Work"]:
        """A generation of at most so many tokens, which the replica has until the body or the work ends."""
        work = Work(self, max(tokens, 1))
        try:
            yield work
        finally:
            work.end()

    def add(self, tokens: int) -> None:
        """Count so many tokens more of our own calls."""
        self._own += tokens

    def reported(self, outstanding_tokens: float) -> None:
        """The replica says how many tokens it has yet to make, ours among them."""
        self._others = max(outstanding_tokens - self._own, 0.0)
        self._reported_s = self._clock()

    def answered(self) -> None:
        """The replica is there: its failures are forgotten, not that it asked for a pause."""
        if self._failures:
            logger.info("replica %s is back", self.name)
            self._failures = 0
            self.cooling_until_s = 0.0

    def failed(self, error: MeshError) -> None:
        """Leave the replica alone for a while, where the error says that it is away or has too much to do."""
        policy = self.policy
        if isinstance(error, Unavailable):
            if not self._failures:
                logger.warning("replica %s is left alone: %s", self.name, error)
            pause_s = min(policy.cooldown_s * 2 ** min(self._failures, 10), policy.cooldown_max_s)
            self._failures += 1
            self.cooling_until_s = self._clock() + pause_s
        elif is_overloaded(error):
            # Not for all the time that it asks for: its reports will say when it has room.
            pause_s = policy.cooldown_s if error.retry_after_s is None else min(error.retry_after_s, policy.cooldown_s)
            self.cooling_until_s = max(self.cooling_until_s, self._clock() + pause_s)


class Work:
    """A generation on a replica; whoever makes it ends it."""

    def __init__(self, standing: Standing, tokens: int) -> None:
        self._standing = standing
        self._left = tokens
        standing.add(tokens)

    def made(self, tokens: int) -> None:
        """So many tokens are made."""
        made = min(tokens, self._left)
        self._left -= made
        self._standing.add(-made)

    def end(self) -> None:
        """No more tokens will be made; may be said twice."""
        self.made(self._left)


def choose(standings: Sequence[Standing], session: str = "", tokens: int = 0) -> Standing:
    """The best of the replicas, at least one, for a generation of so many tokens.

    A session's own replica, found by rendezvous hashing, has its prompt's prefix in the cache: it is taken within a
    bounded load. Where all are to be left alone, the one whose time is up first.
    """
    ready = [(each.outstanding, random.random(), each) for each in standings if not each.cooling]  # noqa: S311
    if not ready:
        return min(standings, key=lambda each: each.cooling_until_s)
    _, _, least = min(ready)
    if not session or len(ready) == 1:
        return least
    mean = sum(outstanding for outstanding, _, _ in ready) / len(ready)
    outstanding, _, own = max(ready, key=lambda each: _affinity(session, each[2].name))
    return own if outstanding <= own.policy.load_factor * mean + max(tokens, 1) else least


def _affinity(session: str, name: str) -> bytes:
    return blake2b(f"{session}\n{name}".encode(), digest_size=8).digest()


def is_overloaded(error: MeshError) -> bool:
    """Whether the replica has too much to do now."""
    return isinstance(error, ResourceExhausted) and error.reason == "OVERLOADED"
