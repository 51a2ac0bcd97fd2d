"""Ingestion on a Ray cluster: started as a process of its own, which tells how it goes line by line."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import typer
from google.protobuf.json_format import MessageToDict, Parse

from ragmesh.ingest.v1 import jobs_pb2
from ragmesh_client.cli.running import WRONG_USAGE, errors
from ragmesh_client.client import Client
from ragmesh_client.intake import HowToTake

_MAX_LINE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Address:
    """What is read where: only paths that some pattern of `include` matches, or any where there is none."""

    uri: str
    include: list[str]
    exclude: list[str]
    delete_missing: bool


@dataclass(frozen=True)
class Cluster:
    """Where Ray runs and what to run there; an empty `model` has embedder_svc encode."""

    address: str
    workers: int
    encoders: int
    gpus: float
    model: str
    embedder: str

    def order(self, client: Client, source: Address, collection: str, how: HowToTake) -> dict[str, Any]:
        """What the process is told."""
        chunking = how.get("chunking")
        return {
            "address": self.address,
            "workers": self.workers,
            "encoders": self.encoders,
            "gpus": self.gpus,
            "model": self.model,
            "embedder": self.embedder,
            "target": client.target,
            "tls": client.tls,
            "source_uri": source.uri,
            "collection": collection.removeprefix("collections/"),
            "include": source.include,
            "exclude": source.exclude,
            "delete_missing": source.delete_missing,
            "strategy": chunking.strategy if chunking else "",
            "parameters": MessageToDict(chunking.parameters) if chunking else {},
            "metadata": dict(how.get("metadata", {})),
        }


async def ordered(client: Client, order: dict[str, Any]) -> AsyncGenerator[jobs_pb2.WatchJobResponse, None]:
    """How the ingestion goes; it ends with the reader. Exits with 2 where it is not installed here."""
    if importlib.util.find_spec("ingest_svc") is None or importlib.util.find_spec("ray") is None:
        errors.print("`--ray` needs the extra: pip install 'ragmesh\\[ray]', on the cluster's nodes too.")
        raise typer.Exit(WRONG_USAGE)
    # What Ray's core logs of dead workers is no news: it does their work again.
    quiet = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_USAGE_STATS_ENABLED": "0"}
    environment = {**quiet, **os.environ, "RAGMESH_TOKEN": client.token, "GRPC_ENABLE_FORK_SUPPORT": "0"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ingest_svc.ray_ingest", json.dumps(order)),
        stdout=PIPE,
        env=environment,
        limit=_MAX_LINE_BYTES,
    )
    try:
        while process.stdout and (line := await process.stdout.readline()):
            yield Parse(line, jobs_pb2.WatchJobResponse())
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
