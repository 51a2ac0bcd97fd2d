"""The wiring of the generator."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import fields
from pathlib import Path

from prometheus_client import Counter
from prometheus_client.registry import Collector

from generator_svc.admission import Limits
from generator_svc.engine import Engine
from generator_svc.extractive_engine import ExtractiveEngine
from generator_svc.generating import Generator
from generator_svc.metrics import GeneratorCollector, queue_wait_histogram, slot_free_histogram
from generator_svc.peers import EncoderPeer
from generator_svc.reviving import Restarts, open_reviving_engine
from generator_svc.service import GeneratorService
from generator_svc.settings import Settings
from generator_svc.vllm_metrics import VllmMetrics
from meshkit.channel import open_channel
from meshkit.server import App, Registration
from meshkit.server_info import Load
from ragmesh.generator.v1 import generator_pb2, generator_pb2_grpc

SERVICE = generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name


@asynccontextmanager
async def open_app(settings: Settings) -> AsyncIterator[App]:
    """The generator with its engine ready."""
    restarted = Counter("ragmesh_generator_engine_restarts", "Engines opened in place of dead ones.", registry=None)
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(_open_engine(settings, restarted.inc))
        yield make_app(engine, settings, [restarted])


def make_app(engine: Engine, settings: Settings, collectors: Sequence[Collector] = ()) -> App:
    """The app that serves this engine; `collectors` are the engine's own."""
    freed, waited = slot_free_histogram(), queue_wait_histogram()
    generator = Generator(engine, _limits(engine, settings), freed.observe, waited.observe)
    own = [freed, waited, GeneratorCollector(generator), VllmMetrics()]

    async def serves() -> bool:
        await engine.check()
        return True

    def load() -> Load:
        now = generator.load()
        return Load(now.running, now.waiting, now.limit)

    registration = Registration(
        SERVICE, generator_pb2_grpc.add_GeneratorServiceServicer_to_server, GeneratorService(generator)
    )
    return App([registration], probes={SERVICE: serves}, load=load, collectors=[*own, *collectors])


def _limits(engine: Engine, settings: Settings) -> Limits:
    return Limits(
        max_running=settings.max_running,
        max_waiting=settings.max_waiting,
        max_running_tokens=settings.max_running_tokens or engine.card.cache_tokens,
        retry_after_s=settings.queue_retry_after_s,
        max_retry_after_s=settings.max_queue_retry_after_s,
        shares=settings.tenant_shares,
    )


def _open_engine(settings: Settings, restarted: Callable[[], None]) -> AbstractAsyncContextManager[Engine]:
    if settings.upstream_url:
        # Only a node that asks an upstream has a driver for it.
        from generator_svc.openai_engine import OpenAIOptions, open_openai_engine

        known = {option.name: getattr(settings, option.name) for option in fields(OpenAIOptions)}
        return open_openai_engine(OpenAIOptions(**known))
    if not settings.model:
        return _open_extractive_engine(settings)
    # Only a node that runs vLLM has it.
    from generator_svc.vllm_arguments import VllmOptions
    from generator_svc.vllm_engine import open_vllm_engine

    same = {option.name: getattr(settings, option.name) for option in fields(VllmOptions)}
    template = settings.chat_template and settings.chat_template.read_text(encoding="utf-8")
    name = settings.model_name or _shown_name(settings.model)
    options = VllmOptions(**{**same, "model_name": name, "chat_template": template})
    restarts = Restarts(settings.restart_backoff_s, settings.restart_backoff_max_s, settings.engine_close_timeout_s)
    return open_reviving_engine(lambda: open_vllm_engine(options), restarts, restarted)


@asynccontextmanager
async def _open_extractive_engine(settings: Settings) -> AsyncIterator[Engine]:
    """The engine that quotes; the embedder, where it has one, need not answer."""
    async with AsyncExitStack() as stack:
        encoder = None
        if settings.encoder_target:
            channel = await stack.enter_async_context(open_channel(settings.encoder_target, settings.channel))
            encoder = EncoderPeer(channel, settings.encoder_timeout_s)
        name = settings.model_name or "extractive"
        yield ExtractiveEngine(name, settings.min_support, encoder, settings.encoder_candidates)


def _shown_name(model: str) -> str:
    """A folder's own name; a name on the hub as it is."""
    return Path(model).resolve().name if Path(model).is_dir() else model
