"""What ingestion is compared with: a LangChain script in an environment of its own, and embedder_svc alone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc

from bench.embed_subjects import IDENTITY
from bench.ingest_watch import Watch, watching
from deploy.local import services
from deploy.local.settings import LocalSettings, Ports
from deploy.local.supervisor import keep_running
from embedder_svc import weights
from ingest_svc.chunking import Chunk
from ingest_svc.encoder import batches
from ingest_svc.settings import Settings
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc

LANGCHAIN = Path("build/langchain")
"""The virtual environment that `make bench-ingest` gives LangChain."""
_SCRIPT = "bench/peers/langchain_ingest.py"
_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the script says of itself, and what it held and used."""

    wall_s: float
    cpu_s: float
    stages_s: dict[str, float]
    chunks: int
    read: list[str]
    failed: dict[str, str]
    watch: Watch


async def run_langchain(folder: Path) -> Answer:
    """Take the folder in with LangChain; raises RuntimeError where the script fails."""
    with tempfile.TemporaryDirectory() as data:
        log = Path(data) / "langchain.log"
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", str(LANGCHAIN / "bin/python"), _SCRIPT),
                *(str(folder), f"{data}/milvus.db", str(weights.locate(weights.BUNDLED_MODEL))),
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )
        try:
            async with watching({"langchain": process.pid}) as watch:
                said, _ = await process.communicate()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if process.returncode:
            raise RuntimeError(f"the LangChain script failed:\n{log.read_text(errors='replace')[-2000:]}")
        answer: dict[str, Any] = json.loads(said.splitlines()[-1])
        return Answer(**answer, watch=watch)


async def embed(texts: Sequence[tuple[Chunk, str]]) -> tuple[float, Watch]:
    """Encode what chunks say by embedder_svc alone, in one stream; the seconds, and what it held and used."""
    limits, ports = Settings(), Ports.free().chosen()
    words = {id(chunk): text for chunk, text in texts}
    runs = batches([chunk for chunk, _ in texts], limits.max_batch_tokens, limits.max_batch_chunks)

    async def messages() -> AsyncIterator[embedder_pb2.EmbedStreamRequest]:
        for run in runs:
            said = [words[id(chunk)] for chunk in run]
            batch = embedder_pb2.EmbedRequest(texts=said, task=embedder_pb2.TASK_TYPE_DOCUMENT)
            yield embedder_pb2.EmbedStreamRequest(batch=batch)

    with tempfile.TemporaryDirectory() as name:
        settings = LocalSettings(data_dir=Path(name))
        program = services.program("embedder", settings, ports, Path(name))
        program = replace(program, environment={**program.environment, "RAGMESH_EMBEDDER_REDIS_URL": ""})
        async with keep_running(program, Path(name) / "embedder.log", settings) as process:
            await process.serving()
            async with (
                watching({"embedder": process.pid}) as watch,
                grpc.aio.insecure_channel(services.address("embedder", ports)) as channel,
            ):
                stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
                began_s = time.perf_counter()
                call = stub.EmbedStream(messages(), timeout=_TIMEOUT_S, metadata=IDENTITY)
                done = sum([answer.batch.vectors.count async for answer in call])
                wall_s = time.perf_counter() - began_s
    if done != len(texts):
        raise RuntimeError(f"{done} vectors of {len(texts)} texts")
    return wall_s, watch
