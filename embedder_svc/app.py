"""The wiring of the embedder."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from prometheus_client.registry import Collector

from embedder_svc import weights
from embedder_svc.batching import BatchLimits, Device, open_device
from embedder_svc.embedding import Embedder, open_embedder
from embedder_svc.embedding_cache import CacheLimits, EmbeddingCache, Memory
from embedder_svc.encoding import Card, ModelOptions
from embedder_svc.loading import load_encoder, load_reranker
from embedder_svc.metrics import CacheCollector
from embedder_svc.ranking import Ranker, open_ranker
from embedder_svc.service import EmbedderService
from embedder_svc.settings import Settings
from meshkit.server import App, Registration
from meshkit.server_info import Load
from ragmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc

SERVICE = embedder_pb2.DESCRIPTOR.services_by_name["EmbedderService"].full_name

# A batch whose arithmetic takes a query's caller some tenths of a second on a CPU, and one that fills a GPU.
_CPU_BATCH_TOKENS = 1024
_GPU_BATCH_TOKENS = 65536


@asynccontextmanager
async def open_app(settings: Settings) -> AsyncIterator[App]:
    """The embedder with its models loaded and warm; raises LoadError where one cannot be. Redis may be away."""
    async with AsyncExitStack() as stack:
        cache = await stack.enter_async_context(_open_cache(settings)) if settings.redis_url else None
        opener = _Opener(settings, stack, cache)
        embedders: dict[str, Embedder] = {}
        rankers: dict[str, Ranker] = {}
        for model in settings.served:
            if model.kind == "encoder":
                embedders[model.shown_name] = await opener.embedder(settings.options(model))
            else:
                rankers[model.shown_name] = await opener.ranker(settings.options(model))
        yield make_app(embedders, rankers, settings, [CacheCollector(cache)] if cache else [])


def make_app(
    embedders: Mapping[str, Embedder],
    rankers: Mapping[str, Ranker],
    settings: Settings,
    collectors: Sequence[Collector] = (),
) -> App:
    """The app that serves these models, by the names that requests give them; `collectors` are the cache's."""
    models: list[Embedder | Ranker] = [*embedders.values(), *rankers.values()]

    async def alive() -> bool:
        return all(model.alive for model in models)

    def load() -> Load:
        loads = [model.load for model in models]
        running, waiting = sum(load.running for load in loads), sum(load.waiting for load in loads)
        return Load(running, waiting, settings.max_concurrent_rpcs)

    servicer = EmbedderService(embedders, rankers, settings.stream_depth)
    registration = Registration(SERVICE, embedder_pb2_grpc.add_EmbedderServiceServicer_to_server, servicer)
    return App([registration], probes={SERVICE: alive}, load=load, collectors=collectors)


@asynccontextmanager
async def _open_cache(settings: Settings) -> AsyncIterator[EmbeddingCache]:
    # Importing redis takes as long as loading a small model: only here, where there is a cache.
    from embedder_svc.redis_embedding_cache import open_redis_embedding_cache

    limits = CacheLimits(
        ttl_s=settings.cache_ttl_s,
        read_timeout_s=settings.cache_timeout_s,
        write_timeout_s=settings.cache_write_timeout_s,
        max_pending_bytes=settings.cache_max_pending_bytes,
        max_failures=settings.cache_max_failures,
        open_s=settings.cache_open_s,
        max_connections=settings.redis_max_connections,
    )
    async with open_redis_embedding_cache(settings.redis_url, limits) as cache:
        yield cache


class _Opener:
    """Opens models on an exit stack, which closes them; those on the CPU share it, and each on a GPU has a thread."""

    def __init__(self, settings: Settings, stack: AsyncExitStack, cache: EmbeddingCache | None) -> None:
        self._settings = settings
        self._stack = stack
        self._cache = cache
        self._cpu = stack.enter_context(open_device("cpu"))

    async def embedder(self, options: ModelOptions) -> Embedder:
        encoder = await asyncio.to_thread(load_encoder, options)
        memory = Memory(self._cache, encoder.card, _recipe(options)) if self._cache else None
        limits, device = _limits(self._settings, encoder.card), self._device(encoder.card)
        opening = open_embedder(encoder, limits, device, self._settings.tokenize_threads, memory)
        return await self._stack.enter_async_context(opening)

    async def ranker(self, options: ModelOptions) -> Ranker:
        reranker = await asyncio.to_thread(load_reranker, options)
        limits, device = _limits(self._settings, reranker.card), self._device(reranker.card)
        opening = open_ranker(reranker, limits, device, self._settings.tokenize_threads)
        return await self._stack.enter_async_context(opening)

    def _device(self, card: Card) -> Device:
        return self._stack.enter_context(open_device(card.name)) if _on_gpu(card) else self._cpu


def _on_gpu(card: Card) -> bool:
    return "cuda" in card.backend


def _limits(settings: Settings, card: Card) -> BatchLimits:
    by_device = _GPU_BATCH_TOKENS if _on_gpu(card) else _CPU_BATCH_TOKENS
    max_batch_tokens = settings.max_batch_tokens or by_device
    return BatchLimits(
        max_batch_tokens=max_batch_tokens,
        max_padding_tokens=settings.max_padding_tokens or max_batch_tokens // 16,
        max_batch_items=settings.max_batch_texts,
        max_queue_tokens=settings.max_queue_tokens,
        window_batches=settings.window_batches,
        max_interactive_run=settings.max_interactive_run,
        retry_after_s=settings.queue_retry_after_s,
    )


def _recipe(options: ModelOptions) -> str:
    """What makes a model's vectors beside its weights: its configuration, and what the settings change of it."""
    prompts = sorted((task.value, prompt) for task, prompt in options.prompts.items())
    return f"{weights.configuration(options.model)} {options.load.dtype} {prompts}"
