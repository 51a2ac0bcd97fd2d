"""How the time that is left for an answer is shared among its stages."""

from dataclasses import dataclass
from typing import Self

from meshkit import deadline
from meshkit.deadline import Deadline


@dataclass(frozen=True, slots=True)
class Budget:
    """The time until a call's deadline; without one it has no end."""

    deadline: Deadline | None = None

    @classmethod
    def current(cls) -> Self:
        """What is left of the call being served."""
        return cls(deadline.current())

    def left_s(self) -> float:
        """Seconds left, infinite without a deadline."""
        return self.deadline.remaining_s() if self.deadline else float("inf")
