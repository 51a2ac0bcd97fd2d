"""Load reports in the trailers of calls, ORCA as gRPC (A51) and Envoy know it, by which a caller picks a replica."""

from collections.abc import Iterable
from dataclasses import dataclass

from xds.data.orca.v3 import orca_load_report_pb2

KEY = "endpoint-load-metrics-bin"
# The same in words, as Envoy takes it too: gRPC's core keeps the binary one to itself and its own balancing.
TEXT_KEY = "endpoint-load-metrics"

_COUNTS = ("running", "waiting", "limit", "outstanding_tokens", "tokens_per_second", "cache_use")
_CACHE = "kv_cache"
_TEXT = "TEXT "
_NAMED = "named_metrics."


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The work that a replica has: what runs, waits and may run, tokens yet to be made, tokens a second.

    `cache_use` is the share of its KV cache in use, 0 to 1.
    """

    running: float = 0
    waiting: float = 0
    limit: float = 0
    outstanding_tokens: float = 0
    tokens_per_second: float = 0
    cache_use: float = 0


def to_trailers(report: LoadReport) -> tuple[tuple[str, str | bytes], ...]:
    """The report as trailers."""
    named = {name: float(getattr(report, name)) for name in _COUNTS}
    message = orca_load_report_pb2.OrcaLoadReport(
        application_utilization=report.running / report.limit if report.limit else 0,
        utilization={_CACHE: report.cache_use},
        named_metrics=named,
    )
    text = _TEXT + ",".join(f"{_NAMED}{name}={value:g}" for name, value in named.items())
    return (KEY, message.SerializeToString()), (TEXT_KEY, text)


def from_trailers(trailers: Iterable[tuple[str, str | bytes]]) -> LoadReport | None:
    """The report that a call's trailers hold in words; None where they hold none that can be read."""
    for key, value in trailers:
        if key == TEXT_KEY and isinstance(value, str) and value.startswith(_TEXT):
            given = dict(_metric(part) for part in value.removeprefix(_TEXT).split(","))
            try:
                return LoadReport(**{name: float(given[_NAMED + name]) for name in _COUNTS if _NAMED + name in given})
            except ValueError:
                return None
    return None


def _metric(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name.strip(), value
