"""The parts of a call's time."""

import time
from collections.abc import Iterable, Iterator
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
            self.add(name, began_s, time.monotonic())

    def add(self, name: str, began_s: float, ended_s: float) -> None:
        """Add a stage that somebody else has timed, in monotonic time."""
        self._stages.append(Stage(name, began_s - self._arrived_s, ended_s - began_s))


def spans(calls: Iterable[Iterable[Stage]]) -> tuple[Stage, ...]:
    """The stages of calls that arrived as one, each from its first beginning to its last end, in order."""
    bounds: dict[str, tuple[float, float]] = {}
    for stage in (stage for stages in calls for stage in stages):
        end_s = stage.start_s + stage.duration_s
        first_s, last_s = bounds.get(stage.name, (stage.start_s, end_s))
        bounds[stage.name] = min(first_s, stage.start_s), max(last_s, end_s)
    whole = [Stage(name, first_s, last_s - first_s) for name, (first_s, last_s) in bounds.items()]
    return tuple(sorted(whole, key=lambda stage: stage.start_s))
