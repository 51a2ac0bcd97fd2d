"""How the time that is left for an answer is shared among its stages."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

from meshkit import deadline
from meshkit.deadline import Deadline

# The most of what is left that a stage may take; rewriting, HyDE and reranking are within the search. So a plan and a
# search of full length leave the writing a third of the time (0.85 x 0.4).
_SHARES: Mapping[str, float] = MappingProxyType(
    {
        "plan": 0.15,
        "rewrite": 0.15,
        "hyde": 0.2,
        "retrieve": 0.6,
        "rerank": 0.3,
        "judge": 0.15,
        "tool": 0.3,
        "prose": 0.5,
    }
)
# A reserve is made for a way of ordinary length; a call that has little time in all keeps most of it.
_MOST_RESERVED = 0.25
_NEWEST_WEIGHS = 0.3
_FADES_BY = 0.8


class Experience:
    """How long stages have taken of late, in seconds; lives as long as the process, and every answer changes it.

    What a stage took counts for 0.3 of its mean. What is left out for its length is believed to take less each time,
    so that it is tried again.
    """

    def __init__(self) -> None:
        self._means_s: dict[str, float] = {}

    def expected_s(self, stage: str) -> float:
        """How long it will take; 0 for a stage that has not been seen."""
        return self._means_s.get(stage, 0.0)

    def took(self, stage: str, duration_s: float) -> None:
        """It has taken so long."""
        mean_s = self._means_s.get(stage, duration_s)
        self._means_s[stage] = mean_s + _NEWEST_WEIGHS * (duration_s - mean_s)

    def left_out(self, stage: str) -> None:
        """It was not tried, because of what was expected."""
        self._means_s[stage] = _FADES_BY * self.expected_s(stage)


@dataclass(frozen=True, slots=True)
class Budget:
    """The time until a call's deadline; without one it has no end.

    `reserve_s` is kept at the end, for keeping the answer and telling its caller.
    """

    deadline: Deadline | None = None
    reserve_s: float = 0.0
    experience: Experience = field(default_factory=Experience)

    @classmethod
    def current(cls, reserve_s: float = 0.0, experience: Experience | None = None) -> Self:
        """What is left of the call being served; the reserve is a quarter of it at most."""
        limit = deadline.current()
        kept_s = min(reserve_s, _MOST_RESERVED * limit.remaining_s()) if limit else 0.0
        return cls(limit.less(kept_s) if limit else None, kept_s, experience or Experience())

    def left_s(self) -> float:
        """Seconds left to work in, infinite without a deadline."""
        return self.deadline.remaining_s() if self.deadline else float("inf")

    def share_s(self, stage: str) -> float:
        """The seconds that a stage which begins now may take."""
        return _SHARES[stage] * self.left_s()

    def affords(self, stage: str, name: str = "") -> bool:
        """Whether the stage, or what `name` says of it more exactly, is expected to end within its share."""
        fits = 0 < self.share_s(stage) >= self.experience.expected_s(name or stage)
        if not fits:
            self.experience.left_out(name or stage)
        return fits

    def limit(self, stage: str) -> Deadline | None:
        """When a stage that begins now has to end."""
        return self.deadline and Deadline.after(self.share_s(stage))

    @asynccontextmanager
    async def within(self, stage: str) -> AsyncIterator[None]:
        """End the body with TimeoutError when the stage's share is used up; peers that it calls get no longer."""
        async with _ending(self.limit(stage)):
            yield

    @asynccontextmanager
    async def ending(self) -> AsyncIterator[None]:
        """End the body with TimeoutError when nothing is left."""
        async with _ending(self.deadline):
            yield


@asynccontextmanager
async def _ending(limit: Deadline | None) -> AsyncIterator[None]:
    if limit is None:
        yield
        return
    async with asyncio.timeout(limit.remaining_s()):
        with deadline.using(limit):
            yield
