"""Prometheus metrics of a server's calls, under the names of go-grpc-prometheus, and their endpoint."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from meshkit.rpc import Rpc

_LABELS = ("grpc_type", "grpc_service", "grpc_method")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """The metrics of a server's calls, for the life of its registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.started = Counter("grpc_server_started", "Calls begun.", _LABELS, registry=registry)
        self.handled = Counter(
            "grpc_server_handled", "Calls ended, by status code.", (*_LABELS, "grpc_code"), registry=registry
        )
        self.in_flight = Gauge("grpc_server_in_flight", "Calls being served.", _LABELS, registry=registry)
        self.received = Counter("grpc_server_msg_received", "Messages received.", _LABELS, registry=registry)
        self.sent = Counter("grpc_server_msg_sent", "Messages sent.", _LABELS, registry=registry)
        self.duration = Histogram(
            "grpc_server_handling_seconds", "Time of calls.", _LABELS, registry=registry, buckets=_SECONDS
        )
        self.first_message = Histogram(
            "grpc_server_first_message_seconds",
            "Time to the first message of server streams.",
            _LABELS,
            registry=registry,
            buckets=_SECONDS,
        )
        self._methods: dict[tuple[str, str, str], MethodMetrics] = {}

    def of(self, rpc: Rpc, kind: str) -> "MethodMetrics":
        """The metrics of a method, which must be one of the server's own: they are kept."""
        labels = (kind, rpc.service, rpc.method)
        found = self._methods.get(labels)
        if found is None:
            found = self._methods[labels] = MethodMetrics(self, labels)
        return found


class MethodMetrics:
    """A server's metrics at the labels of one method, looked up once; lives as long as they."""

    def __init__(self, metrics: Metrics, labels: tuple[str, str, str]) -> None:
        self.started = metrics.started.labels(*labels)
        self.in_flight = metrics.in_flight.labels(*labels)
        self.received = metrics.received.labels(*labels)
        self.sent = metrics.sent.labels(*labels)
        self.duration = metrics.duration.labels(*labels)
        self._handled, self._first_message, self._labels = metrics.handled, metrics.first_message, labels
        self.streams = labels[0] in ("server_stream", "bidi_stream")

    def handled(self, code: str) -> Counter:
        """Calls ended under a canonical code."""
        return self._handled.labels(*self._labels, code)

    def first_message(self) -> Histogram:
        """Only for methods that stream: what is looked up is shown."""
        return self._first_message.labels(*self._labels)


class Observation:
    """The counting of one call; lives as long as the call, and whoever makes it calls `ended` once."""

    def __init__(self, method: MethodMetrics) -> None:
        self._method = method
        self._began_s = time.perf_counter()
        self._awaits_first = method.streams
        method.started.inc()
        method.in_flight.inc()

    def received(self) -> None:
        """Count a message of the caller."""
        self._method.received.inc()

    def sent(self) -> None:
        """Count a message to the caller."""
        self._method.sent.inc()
        if self._awaits_first:
            self._awaits_first = False
            self._method.first_message().observe(self.elapsed_s())

    def ended(self, code: str) -> None:
        """Count the call's end under a canonical code."""
        self._method.in_flight.dec()
        self._method.handled(code).inc()
        self._method.duration.observe(self.elapsed_s())

    def elapsed_s(self) -> float:
        """Seconds since the call began."""
        return time.perf_counter() - self._began_s


@asynccontextmanager
async def open_metrics_endpoint(address: str, registry: CollectorRegistry) -> AsyncIterator[int]:
    """Serve the registry over HTTP at host:port and yield the port; an empty address: no endpoint, port 0."""
    if not address:
        yield 0
        return
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host, registry)
    except (OSError, ValueError) as error:
        raise OSError(f"cannot serve metrics on {address}: {error}") from error
    try:
        yield server.server_port
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()
