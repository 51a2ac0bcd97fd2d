"""The parts of a call's time."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a call: when it began, in seconds from the call's arrival, and the seconds it took."""

    name: str
    start_s: float
    duration_s: float


def stages(arrived_s: float, tokenized_s: float, started_s: float, ended_s: float) -> tuple[Stage, ...]:
    """`tokenize`, `queue` and `encode`, from the points in monotonic time that part them."""
    return (
        Stage("tokenize", 0.0, tokenized_s - arrived_s),
        Stage("queue", tokenized_s - arrived_s, started_s - tokenized_s),
        Stage("encode", started_s - arrived_s, ended_s - started_s),
    )
