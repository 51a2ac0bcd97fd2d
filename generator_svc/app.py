"""The wiring of the generator."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import fields
from pathlib import Path

from prometheus_client import Histogram

from generator_svc.engine import Engine
from generator_svc.extractive_engine import ExtractiveEngine
from generator_svc.generating import Generator, Limits
from generator_svc.service import GeneratorService
from generator_svc.settings import Settings
from generator_svc.vllm_metrics import VllmMetrics
from meshkit.server import App, Registration
from meshkit.server_info import Load
from ragmesh.generator.v1 import generator_pb2, generator_pb2_grpc

SERVICE = generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


@asynccontextmanager
async def open_app(settings: Settings) -> AsyncIterator[App]:
    """The generator with its engine ready."""
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(_open_engine(settings))
        yield make_app(engine, settings)


def make_app(engine: Engine, settings: Settings) -> App:
    """The app that serves this engine."""
    freed = Histogram(
        "ragmesh_generator_cancel_to_slot_free_seconds",
        "Time from a reader's leaving to its slot being free.",
        registry=None,
        buckets=_SECONDS,
    )
    limits = Limits(settings.max_running, settings.max_waiting, settings.queue_retry_after_s)
    generator = Generator(engine, limits, freed.observe)

    async def serves() -> bool:
        await engine.check()
        return True

    def load() -> Load:
        now = generator.load()
        return Load(now.running, now.waiting, now.limit)

    registration = Registration(
        SERVICE, generator_pb2_grpc.add_GeneratorServiceServicer_to_server, GeneratorService(generator)
    )
    return App([registration], probes={SERVICE: serves}, load=load, collectors=[freed, VllmMetrics()])


def _open_engine(settings: Settings) -> AbstractAsyncContextManager[Engine]:
    if not settings.model:
        return nullcontext(ExtractiveEngine(settings.model_name or "extractive", settings.min_support))
    # Only a node that runs vLLM has it.
    from generator_svc.vllm_arguments import VllmOptions
    from generator_svc.vllm_engine import open_vllm_engine

    same = {option.name: getattr(settings, option.name) for option in fields(VllmOptions)}
    template = settings.chat_template and settings.chat_template.read_text(encoding="utf-8")
    name = settings.model_name or _shown_name(settings.model)
    return open_vllm_engine(VllmOptions(**{**same, "model_name": name, "chat_template": template}))


def _shown_name(model: str) -> str:
    """A folder's own name; a name on the hub as it is."""
    return Path(model).resolve().name if Path(model).is_dir() else model
