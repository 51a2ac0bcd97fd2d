"""Whether generator_svc grows while callers leave: many streams, each cancelled before or after its first token.

COUNT names how many, STREAMS how many at a time. Memory is what the generator's process and its engine's hold, at ten
points; growth is counted over the later half of them, when all buffers have their size and the KV cache's pages have
been touched.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil

from bench.generate import IDENTITY, request
from bench.harness import Row, document, write
from bench.serving import engine_of, open_generator
from deploy.local import services
from deploy.local.settings import Ports
from ragmesh.generator.v1 import generator_pb2, generator_pb2_grpc
from tests.tiny_model import make_tiny_model

POINTS, MAX_TOKENS = 10, 512
FLAT_BYTES = 100.0
"""A process that grows by fewer bytes a stream is called flat: ten megabytes in a hundred thousand streams."""
_TIMEOUT_S = 60.0
_POLL_S = 0.01
_LAST_TOKENS = 16


@dataclass
class Memory:
    """Resident bytes of a process by the number of streams that it has had."""

    process: psutil.Process
    points: list[tuple[int, int]] = field(default_factory=list)

    def look(self, streams: int) -> None:
        """Add a point."""
        self.points.append((streams, self.process.memory_info().rss))

    @property
    def slope(self) -> float:
        """Bytes a stream: the least squares' line through the later half of the points."""
        later = self.points[len(self.points) // 2 :]
        mean_x = sum(streams for streams, _ in later) / len(later)
        mean_y = sum(rss for _, rss in later) / len(later)
        spread = sum((streams - mean_x) ** 2 for streams, _ in later)
        return sum((streams - mean_x) * (rss - mean_y) for streams, rss in later) / spread


async def measure(count: int, at_once: int) -> None:
    """Runs the soak, prints what it saw and writes `build/bench/soak.json`; raises where the service has suffered."""
    with tempfile.TemporaryDirectory() as name:
        folder, ports = Path(name), Ports.free().chosen()
        model = str(make_tiny_model(folder / "model"))
        async with (
            open_generator(model, folder, ports) as generator,
            grpc.aio.insecure_channel(services.address("generator", ports)) as channel,
        ):
            stub = generator_pb2_grpc.GeneratorServiceStub(channel)
            memory = {
                "generator_svc": Memory(psutil.Process(generator.pid)),
                "engine": Memory(psutil.Process(engine_of(generator.pid))),
            }
            streams_per_s = await _soak(stub, count, at_once, memory)
            await _is_as_before(stub)
    _report(memory, count, streams_per_s)


async def _soak(
    stub: generator_pb2_grpc.GeneratorServiceStub, count: int, at_once: int, memory: dict[str, Memory]
) -> float:
    """Cancel the streams, look at the memory; returns streams a second."""
    done = await _cancel_many(stub, 0, count // POINTS, at_once)
    began_s = time.perf_counter()
    for point in range(1, POINTS + 1):
        for seen in memory.values():
            seen.look(done)
        print(f"{done:>8} streams  " + "  ".join(f"{n} {m.points[-1][1] / 2**20:.1f} MiB" for n, m in memory.items()))
        if point < POINTS:
            done = await _cancel_many(stub, done, (count - done) // (POINTS - point), at_once)
    return (done - count // POINTS) / (time.perf_counter() - began_s)


async def _cancel_many(stub: generator_pb2_grpc.GeneratorServiceStub, first: int, count: int, at_once: int) -> int:
    """Cancel streams number `first` and so on; returns the number of the next."""
    numbers = iter(range(first, first + count))

    async def worker() -> None:
        for number in numbers:
            await _cancelled(stub, number)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
    return first + count


async def _cancelled(stub: generator_pb2_grpc.GeneratorServiceStub, number: int) -> None:
    """Every other stream is left before its first token, at once or after a few milliseconds."""
    asked = request(f"What is said of the harbour in line {number}?", MAX_TOKENS)
    call = stub.Generate(asked, timeout=_TIMEOUT_S, metadata=IDENTITY)
    if number % 2:
        await call.read()
    else:
        await asyncio.sleep(number % 10 / 1000)
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call.code()


async def _is_as_before(stub: generator_pb2_grpc.GeneratorServiceStub) -> None:
    """Nothing runs or waits any more, and a request is answered to its end."""
    async with asyncio.timeout(_TIMEOUT_S):
        while await _left(stub):  # noqa: ASYNC110 - the server has to be asked
            await asyncio.sleep(_POLL_S)
    asked = request("Who moors the boats?", _LAST_TOKENS)
    parts = [part async for part in stub.Generate(asked, timeout=_TIMEOUT_S, metadata=IDENTITY)]
    if (made := parts[-1].usage.completion_tokens) != _LAST_TOKENS:
        raise RuntimeError(f"an answer of {_LAST_TOKENS} tokens has {made}")
    print("no load is left, and a request is answered")


async def _left(stub: generator_pb2_grpc.GeneratorServiceStub) -> int:
    load = await stub.GetLoad(generator_pb2.GetLoadRequest(), metadata=IDENTITY)
    return load.running + load.waiting


def _report(memory: dict[str, Memory], count: int, streams_per_s: float) -> None:
    rows = [Row("streams_per_s", "generator_svc", streams_per_s, "streams/s", 1)]
    rows.append(Row("streams", "generator_svc", count, "streams", 1))
    for name, seen in memory.items():
        rows += [Row(f"rss_mb_{streams}", name, rss / 2**20, "MiB", 1) for streams, rss in seen.points]
        rows.append(Row("growth_bytes_per_stream", name, seen.slope, "bytes", 1))
        print(f"{name}: {seen.slope:+.0f} bytes a stream, {'flat' if seen.slope < FLAT_BYTES else 'it grows'}")
    print(f"{streams_per_s:.0f} streams/s")
    words = {row.metric: f"MiB after {row.metric.rpartition('_')[2]} streams" for row in rows if "rss" in row.metric}
    words |= {"growth_bytes_per_stream": "growth, bytes a stream", "streams_per_s": "streams/s"}
    document("soak", rows, words)
    print(write("soak", rows))


if __name__ == "__main__":
    asyncio.run(measure(int(os.environ.get("COUNT", "100000")), int(os.environ.get("STREAMS", "64"))))
