"""The services that the gateway calls, as it sees them."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import asdict

import grpc

from gateway.generation import (
    Chat,
    Delta,
    Ending,
    Generation,
    Grounded,
    Model,
    StructuredOutput,
    Usage,
)
from gateway.knowledge import Collection, Embedded
from gateway.retrieval import Degradation, Edition, Found, Hit, Search
from gateway.wire import read_chunk
from meshkit import orca
from meshkit.channel import peer_errors, streaming
from meshkit.errors import MeshError
from ragmesh.common.v1 import server_pb2, server_pb2_grpc, vector_pb2
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from ragmesh.generator.v1 import generator_pb2, generator_pb2_grpc
from ragmesh.ingest.v1 import collections_pb2, collections_pb2_grpc
from ragmesh.retriever.v1 import index_pb2, index_pb2_grpc, retriever_pb2, retriever_pb2_grpc

_ROLES = {
    "system": generator_pb2.ROLE_SYSTEM,
    "user": generator_pb2.ROLE_USER,
    "assistant": generator_pb2.ROLE_ASSISTANT,
}
_Messages = AsyncIterator[generator_pb2.GenerateResponse]
_MAX_PAGE_SIZE = 1000


class RetrieverPeer:
    """The retriever, over a channel that it does not own."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        self._index = index_pb2_grpc.IndexServiceStub(channel)

    async def search(self, search: Search) -> Found:
        request = retriever_pb2.SearchRequest(
            collection=search.collection,
            query=search.query,
            mode=retriever_pb2.SearchMode.ValueType(search.mode.value),
            top_k=search.top_k,
            filter=search.filter,
            rerank=search.rerank,
            diversity=search.diversity,
            window=search.window,
        )
        if search.vector:
            request.vector.MergeFrom(_write_vector(search.vector))
        with _as_asked(), peer_errors("retriever"):
            response = await self._stub.Search(request)
        left_out = tuple(Degradation(left.stage, left.reason) for left in response.degradations)
        return Found(tuple(map(_read_hit, response.hits)), left_out, response.collection_version)

    async def edition(self, collection: str) -> Edition:
        """The collection's content and settings as they are; raises NotFound COLLECTION_NOT_FOUND."""
        request = index_pb2.GetIndexRequest(collection=collection, without_counts=True)
        with peer_errors("retriever"):
            index = (await self._index.GetIndex(request)).index
        settings = hashlib.blake2b(index.spec.SerializeToString(deterministic=True), digest_size=8).hexdigest()
        return Edition(index.version, settings, index.spec.encoder)


@contextmanager
def _as_asked() -> Iterator[None]:
    """Name a bad filter as the question has it: the caller has never seen the search."""
    try:
        yield
    except MeshError as error:
        if error.metadata.get("field") != "filter":
            raise
        raise error.within("retrieval") from error


def _read_hit(message: retriever_pb2.Hit) -> Hit:
    return Hit(read_chunk(message.chunk), message.score, tuple(map(read_chunk, message.window)))


def _write_vector(data: bytes) -> vector_pb2.PackedVectors:
    return vector_pb2.PackedVectors(data=data, dtype=vector_pb2.DATA_TYPE_FLOAT32, dimension=len(data) // 4, count=1)


class GeneratorPeer:
    """The generator, over a channel that it does not own; `reported` hears the load that comes with its answers."""

    def __init__(self, channel: grpc.aio.Channel, reported: Callable[[float], None] | None = None) -> None:
        self._stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        self._reported = reported

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncIterator[AsyncIterator[Delta]]:
        """As `Generator.generate`; the body begins when the first delta is there."""
        with self._errors():
            async with streaming(self._stub.Generate(_write_generation(generation))) as call:
                messages = aiter(call)
                first = await anext(messages, None)
                async with aclosing(self._read_deltas(call, first, messages)) as deltas:
                    yield deltas

    async def _read_deltas(
        self, call: grpc.aio.Call, first: generator_pb2.GenerateResponse | None, rest: _Messages
    ) -> AsyncGenerator[Delta, None]:
        with self._errors():
            if first is not None:
                yield _read_delta(first)
            async for message in rest:
                yield _read_delta(message)
            if self._reported:
                self._hear(await call.trailing_metadata())

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn a failure into the error that was sent, and hear the load that came with it."""
        with peer_errors("generator"):
            try:
                yield
            except grpc.aio.AioRpcError as error:
                self._hear(error.trailing_metadata())
                raise

    def _hear(self, trailers: Iterable[tuple[str, str | bytes]]) -> None:
        if self._reported and (report := orca.from_trailers(trailers)):
            self._reported(report.outstanding_tokens)

    async def count_tokens(self, model: str, prompt: Chat) -> int:
        request = generator_pb2.CountTokensRequest(model=model, chat=_write_chat(prompt))
        with self._errors():
            response = await self._stub.CountTokens(request)
        return response.tokens

    async def list_models(self) -> Sequence[Model]:
        with self._errors():
            response = await self._stub.ListModels(generator_pb2.ListModelsRequest())
        return [_read_model(message) for message in response.models]

    async def outstanding_tokens(self) -> float:
        """The tokens that it has yet to make, for all of its callers."""
        with self._errors():
            response = await self._stub.GetLoad(generator_pb2.GetLoadRequest())
        return response.outstanding_tokens


def _read_delta(message: generator_pb2.GenerateResponse) -> Delta:
    return Delta(
        text=message.text,
        token_count=len(message.token_ids),
        ending=Ending(message.finish_reason) if message.finish_reason else None,
        usage=_read_usage(message) if message.HasField("usage") else None,
    )


def _read_usage(message: generator_pb2.GenerateResponse) -> Usage:
    usage = message.usage
    return Usage(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)


def _read_model(message: generator_pb2.ModelInfo) -> Model:
    return Model(
        name=message.model,
        extractive=message.kind == generator_pb2.ENGINE_KIND_EXTRACTIVE,
        max_model_tokens=message.max_model_tokens,
        engine=message.engine,
        description=message.description,
        ready=message.ready,
        structured_output=message.structured_output,
        lora_adapters=tuple(message.lora_adapters),
    )


def _write_generation(generation: Generation) -> generator_pb2.GenerateRequest:
    prompt, writing = generation.prompt, generation.writing
    sampling = {name: value for name, value in asdict(writing.sampling).items() if value is not None}
    form = writing.structured_output
    return generator_pb2.GenerateRequest(
        model=generation.model,
        chat=_write_chat(prompt) if isinstance(prompt, Chat) else None,
        grounded=_write_grounded(prompt) if isinstance(prompt, Grounded) else None,
        sampling=generator_pb2.Sampling(**sampling) if sampling else None,
        max_tokens=generation.max_tokens,
        stop=writing.stop,
        structured_output=_write_form(form) if form else None,
    )


def _write_chat(prompt: Chat) -> generator_pb2.Chat:
    messages = [generator_pb2.Message(role=_ROLES[said.role], content=said.content) for said in prompt.messages]
    return generator_pb2.Chat(messages=messages)


def _write_grounded(prompt: Grounded) -> generator_pb2.Grounded:
    passages = [
        generator_pb2.Passage(number=passage.number, text=passage.text, title=passage.title, score=passage.score)
        for passage in prompt.passages
    ]
    return generator_pb2.Grounded(question=prompt.question, passages=passages)


def _write_form(form: StructuredOutput) -> generator_pb2.StructuredOutput:
    message = generator_pb2.StructuredOutput()
    if isinstance(form.value, tuple):
        message.choice.texts.extend(form.value)
    else:
        setattr(message, form.form, form.value)
    return message


class EmbedderPeer:
    """The embedder, over a channel that it does not own."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = embedder_pb2_grpc.EmbedderServiceStub(channel)

    async def embed(self, model: str, texts: Sequence[str], dimensions: int) -> Embedded:
        request = embedder_pb2.EmbedRequest(
            model=model,
            texts=texts,
            task=embedder_pb2.TASK_TYPE_DOCUMENT,
            dimensions=dimensions,
            dtype=vector_pb2.DATA_TYPE_FLOAT32,
        )
        with peer_errors("embedder"):
            response = await self._stub.Embed(request)
        vectors = response.vectors
        width = vectors.dimension * 4
        rows = tuple(vectors.data[begin : begin + width] for begin in range(0, len(vectors.data), width))
        return Embedded(rows, vectors.dimension, response.model, sum(response.token_counts))

    async def encode(self, encoder: str, query: str) -> bytes:
        """The query's vector by the encoder, `name@revision`: little-endian 32-bit floats; b"" where it has another."""
        request = embedder_pb2.EmbedRequest(
            model=encoder.rpartition("@")[0],
            texts=[query],
            task=embedder_pb2.TASK_TYPE_QUERY,
            dtype=vector_pb2.DATA_TYPE_FLOAT32,
        )
        with peer_errors("embedder"):
            response = await self._stub.Embed(request)
        return response.vectors.data if response.model == encoder else b""


class IngestPeer:
    """Ingestion, over a channel that it does not own."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = collections_pb2_grpc.CollectionServiceStub(channel)

    async def list_collections(self) -> Sequence[Collection]:
        found: list[Collection] = []
        request = collections_pb2.ListCollectionsRequest(page_size=_MAX_PAGE_SIZE)
        while True:
            with peer_errors("ingest"):
                page = await self._stub.ListCollections(request)
            found += [Collection(each.name, each.create_time.ToDatetime()) for each in page.collections]
            request.page_token = page.next_page_token
            if not request.page_token:
                return found


class ServerPeer:
    """A server of the mesh; `name` and `services` stand for it where it does not answer."""

    def __init__(
        self, name: str, services: Sequence[str], address: str, channel: grpc.aio.Channel, timeout_s: float
    ) -> None:
        self._name = name
        self._services = services
        self._address = address
        self._timeout_s = timeout_s
        self._stub = server_pb2_grpc.ServerServiceStub(channel)

    async def describe(self) -> server_pb2.ServerInfo:
        """The server's description; its services' states stay unspecified where it cannot be had."""
        request = server_pb2.GetServerInfoRequest()
        try:
            server = (await self._stub.GetServerInfo(request, timeout=self._timeout_s)).server
        except grpc.aio.AioRpcError as error:
            words = error.code().name
            states = [server_pb2.ServiceHealth(service=name, message=words) for name in self._services]
            server = server_pb2.ServerInfo(name=self._name, services=states)
        server.address = self._address
        return server
