"""Load reports in the trailers of calls, ORCA as gRPC (A51) and Envoy know it, by which a caller picks a replica."""

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from xds.data.orca.v3 import orca_load_report_pb2

KEY = "endpoint-load-metrics-bin"

_COUNTS = ("running", "waiting", "limit", "outstanding_tokens", "tokens_per_second")
_CACHE = "kv_cache"


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


def to_trailer(report: LoadReport) -> tuple[str, bytes]:
    """The report as a trailer."""
    message = orca_load_report_pb2.OrcaLoadReport(
        application_utilization=report.running / report.limit if report.limit else 0,
        utilization={_CACHE: report.cache_use},
        named_metrics={name: getattr(report, name) for name in _COUNTS},
    )
    return KEY, message.SerializeToString()


def from_trailers(trailers: Iterable[tuple[str, str | bytes]]) -> LoadReport | None:
    """The report that a call's trailers hold; None where they hold none that can be read."""
    message = orca_load_report_pb2.OrcaLoadReport()
    for key, value in trailers:
        if key == KEY and isinstance(value, bytes):
            try:
                message.ParseFromString(value)
            except DecodeError:
                return None
            counts = {name: message.named_metrics[name] for name in _COUNTS if name in message.named_metrics}
            return LoadReport(**counts, cache_use=message.utilization.get(_CACHE, 0.0))
    return None
