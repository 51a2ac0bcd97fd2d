"""The wiring of the embedder."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from embedder_svc import weights
from embedder_svc.batching import BatchLimits
from embedder_svc.embedding import Embedder, open_embedder
from embedder_svc.encoding import Card, Encoder, LoadOptions, Reranker, Task
from embedder_svc.ranking import Ranker, open_ranker
from embedder_svc.service import EmbedderService
from embedder_svc.settings import Settings
from meshkit.server import App, Registration
from meshkit.server_info import Load
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc

SERVICE = embedder_pb2.DESCRIPTOR.services_by_name["EmbedderService"].full_name

# A batch whose arithmetic takes a query's caller some tenths of a second on a CPU, and one that fills a GPU.
_CPU_BATCH_TOKENS = 2048
_GPU_BATCH_TOKENS = 65536


@asynccontextmanager
async def open_app(settings: Settings) -> AsyncIterator[App]:
    """The embedder with its models loaded and warm; raises LoadError where one cannot be."""
    async with AsyncExitStack() as stack:
        encoder = await asyncio.to_thread(_load_encoder, settings)
        embedder = await stack.enter_async_context(
            open_embedder(encoder, _limits(settings, encoder.card), settings.tokenize_threads)
        )
        ranker = None
        if settings.reranker_model:
            reranker = await asyncio.to_thread(_load_reranker, settings)
            ranker = await stack.enter_async_context(
                open_ranker(reranker, _limits(settings, reranker.card), settings.tokenize_threads)
            )
        yield make_app(embedder, ranker, settings)


def make_app(embedder: Embedder, ranker: Ranker | None, settings: Settings) -> App:
    """The app that serves these models."""
    models: list[Embedder | Ranker] = [embedder, ranker] if ranker else [embedder]

    async def alive() -> bool:
        return all(model.alive for model in models)

    def load() -> Load:
        loads = [model.load for model in models]
        running, waiting = sum(load.running for load in loads), sum(load.waiting for load in loads)
        return Load(running, waiting, settings.max_concurrent_rpcs)

    servicer = EmbedderService(embedder, ranker, settings.stream_depth)
    registration = Registration(SERVICE, embedder_pb2_grpc.add_EmbedderServiceServicer_to_server, servicer)
    return App([registration], probes={SERVICE: alive}, load=load)


def _limits(settings: Settings, card: Card) -> BatchLimits:
    by_device = _CPU_BATCH_TOKENS if card.backend.endswith("cpu") else _GPU_BATCH_TOKENS
    return BatchLimits(
        max_batch_tokens=settings.max_batch_tokens or by_device,
        max_batch_items=settings.max_batch_texts,
        max_queue_tokens=settings.max_queue_tokens,
        window_batches=settings.window_batches,
        max_interactive_run=settings.max_interactive_run,
        retry_after_s=settings.queue_retry_after_s,
    )


def _load_encoder(settings: Settings) -> Encoder:
    # Importing the adapter imports torch, which takes seconds: only here, in a thread.
    from embedder_svc.sentence_transformer_encoder import SentenceTransformerEncoder

    given = {Task.QUERY: settings.query_prompt, Task.DOCUMENT: settings.document_prompt}
    return SentenceTransformerEncoder.load(
        settings.model,
        settings.model_name or weights.shown_name(settings.model),
        _options(settings),
        prompts={task: prompt for task, prompt in given.items() if prompt is not None},
        matryoshka_dimensions=settings.matryoshka_dimensions,
    )


def _load_reranker(settings: Settings) -> Reranker:
    from embedder_svc.cross_encoder_reranker import CrossEncoderReranker

    name = settings.reranker_model_name or weights.shown_name(settings.reranker_model)
    return CrossEncoderReranker.load(settings.reranker_model, name, _options(settings))


def _options(settings: Settings) -> LoadOptions:
    return LoadOptions(
        device=settings.device,
        dtype=settings.dtype,
        max_tokens=settings.max_tokens,
        threads=settings.torch_threads,
        download=settings.download,
    )
