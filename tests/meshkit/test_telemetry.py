"""What a server tells of its calls: metrics, spans and log lines."""

import asyncio
import json
import logging
import re
import urllib.request
from typing import Any

import grpc
import pytest
from opentelemetry.instrumentation.grpc import aio_client_interceptors
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client import Counter

from meshkit import errors, logs
from meshkit.identity import to_metadata
from meshkit.server import open_server
from meshkit.settings import ServerSettings
from meshkit.testing import connect, serve
from tests.meshkit.probe import ALICE, KINDS, METHODS, NAME, Echo, app_of, invoke


class Fussy(Echo):
    """Refuses requests whose text says so, and waits on others."""

    async def seen(self, request: Any, context: Any) -> Any:
        if request.text == "refuse":
            raise errors.not_found("collection", "collections/a", "COLLECTION_NOT_FOUND")
        if request.text == "wait":
            await asyncio.sleep(30)
        return await super().seen(request, context)


async def scrape(port: int) -> dict[str, float]:
    """The metrics that a Prometheus server would read, by series."""
    address = f"http://127.0.0.1:{port}/metrics"

    def read() -> str:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return str(reply.read().decode())

    text = await asyncio.to_thread(read)
    return {name: float(value) for name, value in re.findall(r"^([^#\s]+) (\S+)$", text, re.MULTILINE)}


def series(metric: str, kind: str, **labels: str) -> str:
    """A series' name in the text format."""
    # Prometheus writes labels in alphabetical order.
    every = {"grpc_type": kind, "grpc_service": NAME, "grpc_method": METHODS[kind], **labels}
    return metric + "{" + ",".join(f'{key}="{value}"' for key, value in sorted(every.items())) + "}"


@pytest.mark.parametrize("kind", KINDS)
async def test_metrics(wire: Any, kind: str) -> None:
    """Calls are counted by method and code, with their time, their messages and those in flight."""
    async with (
        open_server(ServerSettings(drain_grace_s=0.2), app_of(wire, Fussy(wire))) as server,
        connect(f"127.0.0.1:{server.port}", ALICE) as channel,
    ):
        await invoke(channel, wire, kind, wire.ProbeRequest(text="hello", number=3))
        with pytest.raises(grpc.aio.AioRpcError):
            await invoke(channel, wire, kind, wire.ProbeRequest(text="refuse"))
        waiting = asyncio.create_task(invoke(channel, wire, kind, wire.ProbeRequest(text="wait")))
        await asyncio.sleep(0.1)
        during = await scrape(server.metrics_port)
        waiting.cancel()
        await asyncio.sleep(0.1)
        after = await scrape(server.metrics_port)
    sent = 3 if kind == "server_stream" else 1
    assert during[series("grpc_server_in_flight", kind)] == 1
    assert after[series("grpc_server_in_flight", kind)] == 0
    assert after[series("grpc_server_started_total", kind)] == 3
    for code in ("OK", "NOT_FOUND", "CANCELLED"):
        assert after[series("grpc_server_handled_total", kind, grpc_code=code)] == 1
    assert after[series("grpc_server_handling_seconds_count", kind)] == 3
    assert after[series("grpc_server_msg_received_total", kind)] == 3
    assert after[series("grpc_server_msg_sent_total", kind)] == sent
    first = after.get(series("grpc_server_first_message_seconds_count", kind), 0)
    assert first == (1 if kind in {"server_stream", "bidi_stream"} else 0)
    assert after["process_resident_memory_bytes"] > 0


async def test_a_registry_for_each_server(wire: Any) -> None:
    """Two servers of one process count apart, and a service's own metrics stand beside the server's."""
    settings = ServerSettings(drain_grace_s=0.2)
    documents = Counter("documents", "Documents seen.", registry=None)
    documents.inc(7)
    async with (
        open_server(settings, app_of(wire, Echo(wire), collectors=[documents])) as one,
        open_server(settings, app_of(wire, Echo(wire))) as other,
        connect(f"127.0.0.1:{one.port}", ALICE) as channel,
    ):
        await invoke(channel, wire, "unary", wire.ProbeRequest())
        first, second = await scrape(one.metrics_port), await scrape(other.metrics_port)
    started = series("grpc_server_started_total", "unary")
    assert (first[started], first["documents_total"]) == (1, 7)
    assert started not in second
    assert "documents_total" not in second


async def test_made_up_methods_make_no_series(wire: Any) -> None:
    """A method that does not exist is not counted: its name is the caller's to choose, without end."""
    async with (
        open_server(ServerSettings(drain_grace_s=0.2), app_of(wire, Echo(wire))) as server,
        connect(f"127.0.0.1:{server.port}", ALICE) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError):
            await invoke(channel, wire, "unary", wire.ProbeRequest(), service="made.up")
        metrics = await scrape(server.metrics_port)
    assert not any("made.up" in name for name in metrics)


@pytest.mark.parametrize("kind", KINDS)
async def test_one_span(wire: Any, kind: str) -> None:
    """A call is one span with the method and the status; a failed one is marked."""
    exporter = InMemorySpanExporter()
    processors = [SimpleSpanProcessor(exporter)]
    async with (
        serve(app_of(wire, Fussy(wire)), processors=processors) as address,
        connect(address, ALICE) as channel,
    ):
        await invoke(channel, wire, kind, wire.ProbeRequest())
        with pytest.raises(grpc.aio.AioRpcError):
            await invoke(channel, wire, kind, wire.ProbeRequest(text="refuse"))
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == [f"{NAME}/{METHODS[kind]}"] * 2
    assert [span.attributes["rpc.grpc.status_code"] for span in spans if span.attributes] == [0, 5]
    assert [span.status.is_ok for span in spans] == [True, False]


@pytest.mark.parametrize("kind", KINDS)
async def test_instrumented_caller(wire: Any, kind: str) -> None:
    """The span of a caller that has opentelemetry-instrumentation-grpc is the parent of ours."""
    exporter = InMemorySpanExporter()
    processor = SimpleSpanProcessor(exporter)
    callers = TracerProvider(shutdown_on_exit=False)
    callers.add_span_processor(processor)
    interceptors = aio_client_interceptors(tracer_provider=callers)  # type: ignore[no-untyped-call]
    async with serve(app_of(wire, Echo(wire)), processors=[processor]) as address:
        metadata = to_metadata(ALICE)
        async with grpc.aio.insecure_channel(address, interceptors=interceptors) as channel:
            await invoke(channel, wire, kind, wire.ProbeRequest(), metadata=metadata)
    ours, theirs = sorted(exporter.get_finished_spans(), key=lambda span: span.kind.value)
    assert (ours.kind, theirs.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert ours.parent
    assert theirs.context
    assert ours.parent.span_id == theirs.context.span_id
    assert ours.parent.trace_id == theirs.context.trace_id


async def test_log_line(wire: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A log line written inside a call is JSON and names the call, its ids and its tenant, no header."""

    class Logging(Echo):
        async def seen(self, request: Any, context: Any) -> Any:
            logging.getLogger("service").warning("found %d", 3, extra={"collection": "handbook"})
            return self.wire.ProbeResponse()

    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    logs.configure(ServerSettings())
    try:
        async with serve(app_of(wire, Logging(wire))) as address, connect(address, ALICE) as channel:
            metadata = (("authorization", "Bearer s3cret"), ("x-request-id", "r-1"))
            await invoke(channel, wire, "unary", wire.ProbeRequest(), metadata=metadata)
    finally:
        root.handlers[:], root.level = before, level
    written = capsys.readouterr().err
    line = next(json.loads(line) for line in written.splitlines() if "found 3" in line)
    expected = {
        "level": "WARNING",
        "logger": "service",
        "message": "found 3",
        "collection": "handbook",
        "service": "meshkit",
        "rpc": f"{NAME}/Say",
        "request_id": "r-1",
        "tenant": "acme",
    }
    assert expected.items() <= line.items()
    assert (len(line["trace_id"]), len(line["span_id"])) == (32, 16)
    assert "s3cret" not in written
