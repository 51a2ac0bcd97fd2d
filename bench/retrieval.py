"""A labelled set served: ingest_svc, embedder_svc and retriever_svc as `make up` runs them, and what they find."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict

from bench.labelled import Document, LabelledSet
from deploy.local import redis_server, services
from deploy.local.settings import LocalSettings, Ports
from deploy.local.supervisor import Process, keep_running
from meshkit.channel import open_channel, peer_errors
from meshkit.identity import Identity
from ragmesh.ingest.v1 import (
    collections_pb2,
    collections_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
    jobs_pb2_grpc,
)
from ragmesh.retriever.v1 import index_pb2, index_pb2_grpc, retriever_pb2, retriever_pb2_grpc

_SERVICES = ("embedder", "retriever", "ingest")
TENANT = Identity("eval", "eval", frozenset({"search", "ingest"}))
_AT_ONCE = 4
_TIMEOUT_S = 300.0
# Chunks asked for: several of the first may be of one document, and recall is taken over 20 documents.
TOP_K = 100


@dataclass(frozen=True, slots=True)
class Found:
    """What a query found: hits best first, and the parts of the work that were left out."""

    hits: Sequence[retriever_pb2.Hit]
    degraded: frozenset[str] = frozenset()

    @property
    def documents(self) -> list[str]:
        """The documents by their ids in the set, each where its best chunk stands."""
        return list(dict.fromkeys(hit.chunk.uri for hit in self.hits))


class Served:
    """The services, serving; `open_served` starts and stops them."""

    def __init__(self, stubs: Stubs, processes: Mapping[str, Process], ports: Ports) -> None:
        self.stubs = stubs
        self.processes = processes
        """Redis and the services by name, to be killed or watched."""
        self.ports = ports
        """Where they listen."""

    async def ingest(self, labelled: LabelledSet, collection: str, **settings: Any) -> None:
        """Make the collection and take in every document that has text."""
        with peer_errors():
            await self.stubs.collections.CreateCollection(
                collections_pb2.CreateCollectionRequest(
                    collection_id=collection,
                    collection=collections_pb2.Collection(language=labelled.language, **settings),
                )
            )
        await each(
            self._create(collection, f"d{place}", key, document)
            for place, (key, document) in enumerate(labelled.documents.items())
            if document.text.strip()
        )

    async def _create(self, collection: str, name: str, key: str, document: Document) -> None:
        head = documents_pb2.DocumentHead(document_id=name, title=document.title, uri=key)
        request = documents_pb2.CreateDocumentRequest(
            parent=f"collections/{collection}", document=head, text=document.text, wait=True
        )
        with peer_errors():
            created = (await self.stubs.documents.CreateDocument(request, timeout=_TIMEOUT_S)).document
        if created.state != documents_pb2.Document.STATE_READY and "NO_TEXT" not in str(created.error):
            raise ValueError(f"{key} cannot be ingested: {created.error.message}")

    async def index(self, collection: str) -> index_pb2.IndexInfo:
        """What the collection's index is and holds."""
        request = index_pb2.GetIndexRequest(collection=f"collections/{collection}")
        with peer_errors():
            response: index_pb2.GetIndexResponse = await self.stubs.index.GetIndex(request)
        return response.index

    async def search(self, labelled: LabelledSet, collection: str, **fields: Any) -> dict[str, Found]:
        """What each query of the set finds; `fields` are those of SearchRequest, enums by name."""
        request = ParseDict(
            {"collection": f"collections/{collection}", "topK": TOP_K, **fields}, retriever_pb2.SearchRequest()
        )
        found = await each(self._found(request, query) for query in labelled.queries.values())
        return dict(zip(labelled.queries, found, strict=True))

    async def _found(self, request: retriever_pb2.SearchRequest, query: str) -> Found:
        asked = retriever_pb2.SearchRequest()
        asked.CopyFrom(request)
        asked.query = query
        with peer_errors():
            response = await self.stubs.retriever.Search(asked, timeout=_TIMEOUT_S)
        return Found(response.hits, frozenset(left_out.stage for left_out in response.degradations))


@dataclass(frozen=True, slots=True)
class Stubs:
    """The calls of the services that the benchmarks make."""

    collections: collections_pb2_grpc.CollectionServiceStub
    documents: documents_pb2_grpc.DocumentServiceStub
    jobs: jobs_pb2_grpc.JobServiceStub
    index: index_pb2_grpc.IndexServiceStub
    retriever: retriever_pb2_grpc.RetrieverServiceStub


@asynccontextmanager
async def open_served(
    folder: Path, variables: Mapping[str, str] | None = None, names: Sequence[str] = _SERVICES
) -> AsyncIterator[Served]:
    """The services with their data and logs in the folder; `variables` are of their environment. Raises StartError."""
    settings, ports = LocalSettings(data_dir=folder), Ports.free().chosen()
    programs = [services.program(name, settings, ports, folder) for name in names]
    programs = [replace(each, environment={**each.environment, **(variables or {})}) for each in programs]
    processes: dict[str, Process] = {}
    async with AsyncExitStack() as stack:
        for program in [redis_server.program(folder / "redis", ports.redis), *programs]:
            running = keep_running(program, folder / f"{program.name}.log", settings)
            processes[program.name] = await stack.enter_async_context(running)
            await processes[program.name].serving()
        ingest, retriever = [
            await stack.enter_async_context(open_channel(services.address(name, ports), identity=TENANT))
            for name in ("ingest", "retriever")
        ]
        yield Served(
            Stubs(
                collections_pb2_grpc.CollectionServiceStub(ingest),
                documents_pb2_grpc.DocumentServiceStub(ingest),
                jobs_pb2_grpc.JobServiceStub(ingest),
                index_pb2_grpc.IndexServiceStub(retriever),
                retriever_pb2_grpc.RetrieverServiceStub(retriever),
            ),
            processes,
            ports,
        )


async def each(work: Iterable[Any]) -> list[Any]:
    """The results in order, some at once; the first failure ends all."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def run(one: Any) -> Any:
        async with slots:
            return await one

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(one)) for one in work]
    return [task.result() for task in tasks]
