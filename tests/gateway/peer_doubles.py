"""The gateway's peers as small servers: chunks from a dictionary, answers from a script."""

import asyncio
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from meshkit import deadline
from meshkit.errors import InvalidArgument, MeshError, not_found
from meshkit.identity import Identity, current
from meshkit.server import App, Registration
from meshkit.testing import serve
from ragmesh.common.v1 import chunk_pb2, usage_pb2, vector_pb2
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from ragmesh.generator.v1 import generator_pb2, generator_pb2_grpc
from ragmesh.ingest.v1 import collections_pb2, collections_pb2_grpc
from ragmesh.retriever.v1 import index_pb2, index_pb2_grpc, retriever_pb2, retriever_pb2_grpc

EXTRACTIVE = generator_pb2.ModelInfo(
    model="extractive", kind=generator_pb2.ENGINE_KIND_EXTRACTIVE, engine="extractive", ready=True
)
TINY = generator_pb2.ModelInfo(
    model="tiny",
    kind=generator_pb2.ENGINE_KIND_LANGUAGE_MODEL,
    engine="vllm",
    max_model_tokens=400,
    ready=True,
    structured_output=True,
)
HANDBOOK = ["Employees get 25 days of leave.", "Leave is asked for in the portal."]


def chunk(ordinal: int, text: str, document: str = "leave") -> chunk_pb2.Chunk:
    """A chunk of the collection `handbook`, a hundred bytes behind the one before it."""
    name = f"collections/handbook/documents/{document}"
    message = chunk_pb2.Chunk(
        name=f"{name}/chunks/{ordinal}",
        document=name,
        ordinal=ordinal,
        text=text,
        source=chunk_pb2.Span(start=100 * ordinal, end=100 * ordinal + len(text.encode())),
        page=ordinal + 1,
        heading_path=["Handbook", "Leave"],
        title="Leave",
        uri="https://example.com/leave",
    )
    message.metadata["lang"] = "en"
    return message


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer, index_pb2_grpc.IndexServiceServicer):
    """Finds the texts of each collection, best first; knows no other collection.

    `versions` has those of collections, by tenant and name, whose answers may be given again.
    """

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {"collections/handbook": HANDBOOK, "collections/empty": []}
        self.versions: dict[tuple[str, str], int] = {}
        self.requests: list[retriever_pb2.SearchRequest] = []
        self.callers: list[Identity] = []
        self.error: MeshError | None = None
        self.delay_s = 0.0

    async def Search(self, request: retriever_pb2.SearchRequest, context: Any) -> retriever_pb2.SearchResponse:
        self.requests.append(request)
        self.callers.append(current())
        await asyncio.sleep(self.delay_s)
        if self.error:
            raise self.error
        if request.collection not in self.texts:
            raise not_found("collection", request.collection, "COLLECTION_NOT_FOUND")
        texts = self.texts[request.collection][: request.top_k]
        hits = [retriever_pb2.Hit(chunk=chunk(i, text), score=1 / (i + 1)) for i, text in enumerate(texts)]
        version = self.versions.get((current().tenant, request.collection), 0)
        return retriever_pb2.SearchResponse(hits=hits, collection_version=version)

    async def GetIndex(self, request: index_pb2.GetIndexRequest, context: Any) -> index_pb2.GetIndexResponse:
        version = self.versions.get((current().tenant, request.collection))
        if version is None:
            raise not_found("collection", request.collection, "COLLECTION_NOT_FOUND")
        spec = index_pb2.IndexSpec(collection=request.collection, encoder="minilm@1", dimension=64)
        return index_pb2.GetIndexResponse(index=index_pb2.IndexInfo(spec=spec, version=version))


@dataclass
class Script:
    """What the engine does: tokens with a pause between them, then an error, a wait for ever, or an end.

    With `turns` it makes a token for each that is released.
    """

    tokens: Sequence[str] = ("Employees ", "get 25 days ", "of leave. [", "1]")
    gap_s: float = 0.0
    turns: asyncio.Semaphore | None = None
    hang: bool = False
    error: MeshError | None = None
    finish: Any = generator_pb2.FINISH_REASON_STOP


@dataclass
class Freed:
    """When the engine's slot was freed, in seconds of the monotonic clock."""

    at_s: float = 0.0
    event: asyncio.Event = field(default_factory=asyncio.Event)


class Generator(generator_pb2_grpc.GeneratorServiceServicer):
    """Says what the script says, and in the form that is asked for the next of `forms`; counts words as tokens."""

    def __init__(self) -> None:
        self.models = [EXTRACTIVE]
        self.script = Script()
        self.forms: list[str] = []
        self.requests: list[generator_pb2.GenerateRequest] = []
        self.remaining_s: list[float] = []
        self.counted = 0
        self.freed = Freed()

    async def Generate(
        self, request: generator_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[generator_pb2.GenerateResponse]:
        self.requests.append(request)
        limit = deadline.current()
        self.remaining_s.append(limit.remaining_s() if limit else 0.0)
        self._check_length(request)
        form = request.HasField("structured_output") and self.forms
        try:
            async for response in self._said(Script([self.forms.pop(0)]) if form else self.script):
                yield response
        finally:
            self.freed.at_s = time.monotonic()
            self.freed.event.set()

    def _check_length(self, request: generator_pb2.GenerateRequest) -> None:
        """Refuse a chat that is too long for its model, where that has a bound."""
        bound = next((model.max_model_tokens for model in self.models if model.model == request.model), 0)
        if bound and _words(request.chat) + request.max_tokens > bound:
            raise InvalidArgument("PROMPT_TOO_LONG", "too long")

    async def _said(self, script: Script) -> AsyncIterator[generator_pb2.GenerateResponse]:
        for place, text in enumerate(script.tokens):
            await (script.turns.acquire() if script.turns else asyncio.sleep(script.gap_s if place else 0))
            yield generator_pb2.GenerateResponse(text=text, token_ids=[place])
        if script.hang:
            await asyncio.Event().wait()
        if script.error:
            raise script.error
        usage = usage_pb2.Usage(prompt_tokens=30, cached_tokens=10, completion_tokens=len(script.tokens))
        yield generator_pb2.GenerateResponse(finish_reason=script.finish, usage=usage)

    async def CountTokens(
        self, request: generator_pb2.CountTokensRequest, context: Any
    ) -> generator_pb2.CountTokensResponse:
        self.counted += 1
        return generator_pb2.CountTokensResponse(tokens=_words(request.chat), max_model_tokens=TINY.max_model_tokens)

    async def ListModels(
        self, request: generator_pb2.ListModelsRequest, context: Any
    ) -> generator_pb2.ListModelsResponse:
        return generator_pb2.ListModelsResponse(models=self.models)


def _words(chat: generator_pb2.Chat) -> int:
    return sum(len(message.content.split()) for message in chat.messages)


class Embedder(embedder_pb2_grpc.EmbedderServiceServicer):
    """Vectors of two numbers: the text's length and its place."""

    async def Embed(self, request: embedder_pb2.EmbedRequest, context: Any) -> embedder_pb2.EmbedResponse:
        if request.model not in ("", "minilm"):
            raise not_found("model", request.model, "MODEL_NOT_FOUND")
        if request.dimensions not in (0, 2):
            raise InvalidArgument("INVALID_FIELD", "dimensions")
        if request.task == embedder_pb2.TASK_TYPE_QUERY:
            return embedder_pb2.EmbedResponse(vectors=_by_letters(request.texts[0]), model="minilm@1")
        rows = [struct.pack("<2f", len(text), place) for place, text in enumerate(request.texts)]
        vectors = vector_pb2.PackedVectors(data=b"".join(rows), dimension=2, count=len(rows))
        return embedder_pb2.EmbedResponse(vectors=vectors, token_counts=[len(t.split()) for t in request.texts])


def _by_letters(text: str) -> vector_pb2.PackedVectors:
    """A vector of how often each letter is there, so that texts of the same words are near."""
    counts = Counter(ord(letter) % 64 for letter in text.casefold())
    data = struct.pack("<64f", *(counts[place] for place in range(64)))
    return vector_pb2.PackedVectors(data=data, dimension=64, count=1)


class Collections(collections_pb2_grpc.CollectionServiceServicer):
    """Two collections, one a page."""

    async def ListCollections(
        self, request: collections_pb2.ListCollectionsRequest, context: Any
    ) -> collections_pb2.ListCollectionsResponse:
        name, behind = ("handbook", "") if request.page_token else ("empty", "2")
        made = collections_pb2.Collection(name=f"collections/{name}")
        made.create_time.FromSeconds(1_700_000_000)
        return collections_pb2.ListCollectionsResponse(collections=[made], next_page_token=behind)


@dataclass
class Peers:
    """The four peers on one server."""

    address: str
    retriever: Retriever
    generator: Generator


@asynccontextmanager
async def open_peers() -> AsyncIterator[Peers]:
    """The peers, served until the body ends."""
    retriever, generator = Retriever(), Generator()
    app = App(
        [
            _registered(retriever_pb2, retriever_pb2_grpc.add_RetrieverServiceServicer_to_server, retriever),
            _registered(index_pb2, index_pb2_grpc.add_IndexServiceServicer_to_server, retriever),
            _registered(generator_pb2, generator_pb2_grpc.add_GeneratorServiceServicer_to_server, generator),
            _registered(embedder_pb2, embedder_pb2_grpc.add_EmbedderServiceServicer_to_server, Embedder()),
            _registered(collections_pb2, collections_pb2_grpc.add_CollectionServiceServicer_to_server, Collections()),
        ]
    )
    async with serve(app) as address:
        yield Peers(address, retriever, generator)


def _registered(contract: Any, add: Any, servicer: object) -> Registration:
    (service,) = contract.DESCRIPTOR.services_by_name.values()
    return Registration(service.full_name, add, servicer)
