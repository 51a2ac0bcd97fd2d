"""retriever_svc as a process over an index that is filled, and its Search called over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc

from bench.search_data import DIMENSION, Query
from bench.search_lance import FILTER, SCOPE, number_of
from bench.search_load import TOP_K, Find, Task
from deploy.local import services
from deploy.local.settings import LocalSettings, Ports
from deploy.local.supervisor import keep_running
from ragmesh.common.v1 import vector_pb2
from ragmesh.retriever.v1 import retriever_pb2, retriever_pb2_grpc
from retriever_svc.index import Place

_IDENTITY = (("x-ragmesh-tenant", SCOPE.tenant), ("x-ragmesh-subject", "bench"), ("x-ragmesh-scopes", "search"))
_TIMEOUT_S = 60.0
_MODES = {
    "dense": retriever_pb2.SEARCH_MODE_DENSE,
    "sparse": retriever_pb2.SEARCH_MODE_SPARSE,
    "hybrid": retriever_pb2.SEARCH_MODE_HYBRID,
}


@dataclass(frozen=True, slots=True)
class Service:
    """The process, and a call to it."""

    pid: int
    find: Find


@asynccontextmanager
async def open_service(folder: Path) -> AsyncIterator[Service]:
    """The service with its default settings over the index in the folder; it has no embedder and needs none."""
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        settings, ports = LocalSettings(data_dir=scratch), Ports.free().chosen()
        program = services.program("retriever", settings, ports, scratch)
        index = {"RAGMESH_RETRIEVER_INDEX_URI": f"lance:{folder}", "RAGMESH_RETRIEVER_MILVUS_URI": ""}
        program = replace(program, environment={**program.environment, **index})
        running = keep_running(program, scratch / "retriever.log", settings)
        process = await stack.enter_async_context(running)
        await process.serving()
        target = services.address("retriever", ports)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))
        yield Service(process.pid, _finding(retriever_pb2_grpc.RetrieverServiceStub(channel)))


def _finding(stub: retriever_pb2_grpc.RetrieverServiceStub) -> Find:
    async def find(query: Query, task: Task) -> list[int]:
        response = await stub.Search(_request(query, task), timeout=_TIMEOUT_S, metadata=_IDENTITY)
        places = (Place(hit.chunk.document.rpartition("/")[2], hit.chunk.ordinal) for hit in response.hits)
        return [number_of(place) for place in places]

    return find


def _request(query: Query, task: Task) -> retriever_pb2.SearchRequest:
    vector = vector_pb2.PackedVectors(data=query.vector.astype("<f4").tobytes(), dimension=DIMENSION, count=1)
    return retriever_pb2.SearchRequest(
        collection=SCOPE.name,
        query="" if task.mode == "dense" else query.text,
        vector=None if task.mode == "sparse" else vector,
        mode=_MODES[task.mode],
        top_k=TOP_K,
        filter=FILTER if task.filtered else "",
    )
