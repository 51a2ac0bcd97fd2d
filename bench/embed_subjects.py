"""The subjects of the embedding benchmark: processes that encode, each started for a round and ended after it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import grpc
import httpx
import numpy as np

from deploy.local import services
from deploy.local.settings import HOST, LocalSettings, Ports
from deploy.local.supervisor import Program, keep_running
from embedder_svc.encoding import Vectors
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc

INFINITY = Path("build/infinity")
"""The virtual environment that `make bench-embed` gives infinity, with the model as ONNX in `model`."""
IDENTITY = (("x-ragmesh-tenant", "local"), ("x-ragmesh-subject", "bench"), ("x-ragmesh-scopes", "ask search"))
_MESSAGE_TEXTS = 64
"""Texts of a bulk message or request, as ingest_svc sends them."""
_TIMEOUT_S = 120.0
_POLL_S = 0.02
_LINE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors, row by row, and the seconds that they took."""

    vectors: Vectors
    wall_s: float


@dataclass(frozen=True, slots=True)
class Answered:
    """The seconds of each question, and of all of them."""

    seconds: list[float]
    wall_s: float


class Subject(Protocol):
    """A process that encodes."""

    @property
    def pid(self) -> int:
        """Its process."""

    async def encode(self, texts: Sequence[str]) -> Encoded:
        """Encode documents in bulk."""

    async def ask(self, questions: Sequence[str], at_once: int) -> Answered:
        """Encode each question in a call of its own, with so many calls open."""


Open = Callable[[], AbstractAsyncContextManager[Subject]]
"""Starts a subject; it ends with the body."""
Bulk = Callable[[Sequence[str]], Awaitable[Vectors]]
Query = Callable[[str], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Server:
    """A subject that is called over a connection."""

    pid: int
    bulk: Bulk
    query: Query

    async def encode(self, texts: Sequence[str]) -> Encoded:
        began_s = time.perf_counter()
        vectors = await self.bulk(texts)
        return Encoded(vectors, time.perf_counter() - began_s)

    async def ask(self, questions: Sequence[str], at_once: int) -> Answered:
        waiting, seconds = iter(questions), list[float]()

        async def caller() -> None:
            for question in waiting:
                asked_s = time.perf_counter()
                await self.query(question)
                seconds.append(time.perf_counter() - asked_s)

        began_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(caller())
        return Answered(seconds, time.perf_counter() - began_s)


@dataclass(frozen=True, slots=True)
class Worker:
    """A `bench.embed_worker`, which encodes and takes the time in its own process."""

    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self.process.pid

    async def encode(self, texts: Sequence[str]) -> Encoded:
        answer = await self._answer({"encode": list(texts)})
        return Encoded(_rows(base64.b64decode(answer["vectors"]), len(texts)), answer["wall_s"])

    async def ask(self, questions: Sequence[str], at_once: int) -> Answered:
        return Answered(**await self._answer({"ask": list(questions), "at_once": at_once}))

    async def _answer(self, wanted: dict[str, object]) -> dict[str, Any]:
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the worker has no pipes")
        stdin.write(json.dumps(wanted).encode() + b"\n")
        await stdin.drain()
        line = await stdout.readline()
        if not line:
            raise RuntimeError("the worker ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def open_worker(subject: str) -> AsyncIterator[Subject]:
    """One of `bench.embed_worker`."""
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "bench.embed_worker", subject),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        limit=_LINE_BYTES,
    )
    try:
        yield Worker(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@asynccontextmanager
async def open_ragmesh(folder: Path) -> AsyncIterator[Subject]:
    """embedder_svc as the local mesh runs it, without its cache."""
    ports = Ports.free().chosen()
    settings = LocalSettings(data_dir=folder, poll_interval_s=_POLL_S)
    program = services.program("embedder", settings, ports, folder)
    program = replace(program, environment={**program.environment, "RAGMESH_EMBEDDER_REDIS_URL": ""})
    async with keep_running(program, folder / "ragmesh.log", settings) as process:
        await process.serving()
        async with grpc.aio.insecure_channel(services.address("embedder", ports)) as channel:
            stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
            yield Server(process.pid, partial(_stream, stub), partial(_embed, stub))


async def _stream(stub: embedder_pb2_grpc.EmbedderServiceStub, texts: Sequence[str]) -> Vectors:
    async def messages() -> AsyncIterator[embedder_pb2.EmbedStreamRequest]:
        for some in _split(texts):
            batch = embedder_pb2.EmbedRequest(texts=some, task=embedder_pb2.TASK_TYPE_DOCUMENT)
            yield embedder_pb2.EmbedStreamRequest(batch=batch)

    data = [
        answer.batch.vectors.data
        async for answer in stub.EmbedStream(messages(), timeout=_TIMEOUT_S, metadata=IDENTITY)
    ]
    return _rows(b"".join(data), len(texts))


async def _embed(stub: embedder_pb2_grpc.EmbedderServiceStub, question: str) -> embedder_pb2.EmbedResponse:
    request = embedder_pb2.EmbedRequest(texts=[question], task=embedder_pb2.TASK_TYPE_QUERY)
    return await stub.Embed(request, timeout=_TIMEOUT_S, metadata=IDENTITY)


@asynccontextmanager
async def open_infinity(folder: Path) -> AsyncIterator[Subject]:
    """The server of infinity-emb on its ONNX engine; vectors travel as base64, the shortest form that it has."""
    port = Ports.free().chosen().embedder
    settings = LocalSettings(data_dir=folder, poll_interval_s=_POLL_S)
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=_TIMEOUT_S) as client:
        program = Program("infinity", _infinity(port), partial(_healthy, client), _infinity_environment())
        async with keep_running(program, folder / "infinity.log", settings) as process:
            await process.serving()
            yield Server(process.pid, partial(_post_all, client), partial(_post_one, client))


def _infinity(port: int) -> list[str]:
    # It finds the files of a model's folder only where that is the current one.
    folder = str(INFINITY.resolve() / "model")
    command = ["env", "--chdir", folder, str(INFINITY.resolve() / "bin/infinity_emb"), "v2", "--model-id", "."]
    # The model is optimised already, as its own optimising fails with the optimum that this PyTorch needs.
    options = ["--engine", "optimum", "--onnx-disable-optimize", "--pooling-method", "mean", "--device", "cpu"]
    options += ["--no-model-warmup", "--served-model-name", "model"]
    return [*command, *options, "--host", HOST, "--port", str(port), "--log-level", "warning"]


def _infinity_environment() -> dict[str, str]:
    home = str(INFINITY.resolve())
    return {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": home, "INFINITY_HOME": home}


async def _healthy(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health", timeout=1.0)).is_success
    except httpx.TransportError:
        return False


async def _post_all(client: httpx.AsyncClient, texts: Sequence[str]) -> Vectors:
    answers = await asyncio.gather(*(_post(client, some) for some in _split(texts)))
    return np.concatenate(answers)


async def _post_one(client: httpx.AsyncClient, question: str) -> Vectors:
    return await _post(client, [question])


async def _post(client: httpx.AsyncClient, texts: Sequence[str]) -> Vectors:
    body = {"model": "model", "input": list(texts), "encoding_format": "base64"}
    reply = await client.post("/embeddings", json=body)
    reply.raise_for_status()
    return _rows(b"".join(base64.b64decode(row["embedding"]) for row in reply.json()["data"]), len(texts))


def _split(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[start : start + _MESSAGE_TEXTS] for start in range(0, len(texts), _MESSAGE_TEXTS)]


def _rows(data: bytes, count: int) -> Vectors:
    return np.frombuffer(data, dtype="<f4").reshape(count, -1)
