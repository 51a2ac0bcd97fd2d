"""What happened to answers, kept apart from the process that gives them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from gateway.answers import Answer, Exchange, Question
from gateway.events import Failed, Numbered
from meshkit.identity import Identity


@dataclass(frozen=True, slots=True)
class Opening:
    """How an answer began: what was asked, when, what was known of the answer then, and which process makes it."""

    question: Question
    answer: Answer
    create_time: datetime
    producer: str


@dataclass(frozen=True, slots=True)
class Background:
    """What stands behind an answer and no event tells.

    The last plan as data, the prompt as the engine got it, as JSON ("" for none), and the conversation before it.
    """

    plan: Mapping[str, Any]
    prompt: str
    history: tuple[Exchange, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """What is new about an answer: the first part has the opening, the last one the background."""

    owner: Identity
    answer: str
    events: tuple[Numbered, ...]
    opening: Opening | None = None
    background: Background | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """All that is known of how an answer came about; `events` stand in order, each once."""

    opening: Opening
    events: tuple[Numbered, ...]
    background: Background | None = None

    @property
    def ended(self) -> bool:
        """Whether the last event is there."""
        return bool(self.events) and isinstance(self.events[-1].event, Answer | Failed)


def recorded(parts: Sequence[Part]) -> Record | None:
    """The record that the parts make; None without an opening.

    An event that was written twice counts once. What stands before the last opening is of an answer that died and was
    begun anew under its name.
    """
    begin = max((place for place, part in enumerate(parts) if part.opening), default=len(parts))
    events: list[Numbered] = []
    background = None
    for part in parts[begin:]:
        background = part.background or background
        events += (numbered for numbered in part.events if numbered.sequence > len(events))
    opening = parts[begin].opening if begin < len(parts) else None
    return Record(opening, tuple(events), background) if opening else None


class Journal(Protocol):
    """Keeps the parts of answers for a while, each for the caller who asked; raises Unavailable STORE_UNAVAILABLE."""

    async def add(self, parts: Sequence[Part]) -> None:
        """Add parts of any number of answers. Where it fails they may have been added all the same."""
        ...

    async def read(self, owner: Identity, answer: str, begin: int = 0) -> Sequence[Part]:
        """The answer's parts from the one at `begin` on."""
        ...

    async def live(self, producer: str, for_s: float) -> None:
        """Say that the process lives, which counts for so long."""
        ...

    async def lives(self, producer: str) -> bool:
        """Whether the process has said so lately."""
        ...
