"""The parts of a call's time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a call: when it began, in seconds from the call's arrival, and the seconds it took."""

    name: str
    start_s: float
    duration_s: float


class Stopwatch:
    """Times the stages of one call, from when it is made."""

    def __init__(self) -> None:
        self._arrived_s = time.monotonic()
        self._stages: list[Stage] = []

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Those that have ended, in the order in which they began."""
        return tuple(sorted(self._stages, key=lambda stage: stage.start_s))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body as a stage, also where it fails."""
        began_s = time.monotonic()
        try:
            yield
        finally:
            ended_s = time.monotonic()
            self._stages.append(Stage(name, began_s - self._arrived_s, ended_s - began_s))
