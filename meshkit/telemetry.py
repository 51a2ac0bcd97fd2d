"""What a server tells of its calls: a span, metrics and a log line each."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.registry import Collector

from meshkit.metrics import Metrics, Observation, open_metrics_endpoint
from meshkit.rpc import Rpc
from meshkit.settings import ServerSettings

logger = logging.getLogger(__name__)
_propagator = TraceContextTextMapPropagator()


def trace_metadata() -> list[tuple[str, str]]:
    """The metadata that carries the current trace to a peer."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return list(carrier.items())


def trace_ids() -> tuple[str, str]:
    """The ids of the current trace and span in hex, both "" outside of a trace."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return "", ""
    return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)


class Telemetry:
    """The tracer and the metrics of one server; lives as long as the server, opened and closed with it.

    opentelemetry-instrumentation-grpc is not used: it serves a stream as a generator, which is closed in
    another context when the caller leaves, and then fails to detach its span.
    """

    def __init__(self, tracer: Tracer, registry: CollectorRegistry, metrics_port: int) -> None:
        self.metrics_port = metrics_port
        self._tracer = tracer
        self._metrics = Metrics(registry)

    @contextmanager
    def observe(
        self,
        rpc: Rpc,
        kind: str,
        metadata: Mapping[str, str | bytes],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> Iterator[Observation]:
        """Trace and count the call that the body serves, and log its end; errors pass through."""
        parent = _propagator.extract({key: value for key, value in metadata.items() if isinstance(value, str)})
        observation = Observation(self._metrics.of(rpc, kind))
        deadline_s = context.time_remaining()
        code = grpc.StatusCode.OK
        with self._tracer.start_as_current_span(
            rpc.name, parent, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield observation
            except BaseException as error:
                code = _code(error, context)
                raise
            finally:
                _describe(span, rpc, code)
                observation.ended(code.name)
                _log(code, observation.elapsed_s(), deadline_s)


def _log(code: grpc.StatusCode, duration_s: float, deadline_s: float | None) -> None:
    """One line a call, with the time that its caller gave it; an answer as it should be is for debugging only."""
    level = logging.DEBUG if code is grpc.StatusCode.OK else logging.INFO
    if not logger.isEnabledFor(level):
        return
    given = {} if deadline_s is None else {"deadline_s": round(deadline_s, 6)}
    logger.log(level, "answered", extra={"code": code.name, "duration_s": round(duration_s, 6), **given})


def _code(error: BaseException, context: "grpc.aio.ServicerContext[Any, Any]") -> grpc.StatusCode:
    """The status that the caller sees of a call that ended so."""
    if isinstance(error, grpc.aio.AbortError):
        return context.code()
    if isinstance(error, asyncio.CancelledError):
        late = context.time_remaining() == 0
        return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
    return grpc.StatusCode.UNKNOWN


def _describe(span: Span, rpc: Rpc, code: grpc.StatusCode) -> None:
    span.set_attributes(
        {
            "rpc.system": "grpc",
            "rpc.service": rpc.service,
            "rpc.method": rpc.method,
            "rpc.grpc.status_code": code.value[0],
        }
    )
    if code is not grpc.StatusCode.OK:
        span.set_status(Status(StatusCode.ERROR, code.name))


@asynccontextmanager
async def open_telemetry(
    settings: ServerSettings, collectors: Sequence[Collector] = (), processors: Sequence[SpanProcessor] = ()
) -> AsyncIterator[Telemetry]:
    """A server's telemetry: `collectors` join its metrics, `processors` get its spans beside OTLP's."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    for collector in collectors:
        registry.register(collector)
    async with AsyncExitStack() as stack:
        resource = Resource.create({"service.name": settings.process})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        # Shutting down sends what is left, over a blocking channel.
        stack.push_async_callback(asyncio.to_thread, provider.shutdown)
        for processor in (*processors, *_exporting(settings)):
            provider.add_span_processor(processor)
        port = await stack.enter_async_context(open_metrics_endpoint(settings.metrics_listen, registry))
        yield Telemetry(provider.get_tracer("meshkit"), registry, port)


def _exporting(settings: ServerSettings) -> list[SpanProcessor]:
    if not settings.otlp_endpoint:
        return []
    exporter = OTLPSpanExporter(settings.otlp_endpoint, insecure=True, timeout=settings.otlp_timeout_s)
    return [BatchSpanProcessor(exporter)]
