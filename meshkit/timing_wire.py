"""The parts of a call's time as callers read them: a message, and a trailer for those who read metadata."""

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from meshkit.timing import Stage
from ragmesh.common.v1 import usage_pb2

TIMINGS_KEY = "ragmesh-timings"


def timings_message(stages: Sequence[Stage]) -> usage_pb2.Timings:
    """The stages, to the microsecond."""
    return usage_pb2.Timings(timings=map(_timing, stages))


def timings_trailer(stages: Sequence[Stage]) -> tuple[tuple[str, str], ...]:
    """The trailing metadata that tells the stages in milliseconds, in the form of HTTP's Server-Timing.

    For instance `ragmesh-timings: embed;dur=8.1, fuse;dur=0.2`.
    """
    return ((TIMINGS_KEY, ", ".join(f"{stage.name};dur={stage.duration_s * 1000:.1f}" for stage in stages)),)


def _timing(stage: Stage) -> usage_pb2.Timing:
    return usage_pb2.Timing(stage=stage.name, start=_duration(stage.start_s), duration=_duration(stage.duration_s))


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration
