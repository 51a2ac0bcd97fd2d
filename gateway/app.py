"""The wiring of the gateway."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor

from gateway.balanced_generator import Replica, open_balanced_generator
from gateway.balancing import Policy, Standing
from gateway.course import Limits, Ports
from gateway.generation import Generator
from gateway.metrics import CacheCollector
from gateway.models import open_models
from gateway.peers import EmbedderPeer, GeneratorPeer, IngestPeer, RetrieverPeer, ServerPeer
from gateway.plans import PlanLimits
from gateway.redis_answers import RedisAnswers, RedisFeedback
from gateway.redis_journal import RedisJournal
from gateway.redis_sessions import RedisSessions
from gateway.resuming import Resuming
from gateway.service import FeedbackService, MeshService, SessionService
from gateway.service_answers import AnswerService
from gateway.service_openai import OpenAIService
from gateway.settings import Settings
from gateway.summarising import open_summaries
from gateway.tavily_web import open_tavily_web
from gateway.tools import ToolLimits
from gateway.web import Web
from gateway.wiring_answers import open_resuming
from gateway.wiring_cache import open_cache
from meshkit.channel import make_channel, open_channel
from meshkit.identity import Identity
from meshkit.redis_store import open_redis
from meshkit.replicas import Following, Resolve, is_several, open_replicas, resolve
from meshkit.server import App, Registration
from ragmesh.embedder.v1 import embedder_pb2
from ragmesh.gateway.v1 import (
    answers_pb2,
    answers_pb2_grpc,
    api_keys_pb2,
    api_keys_pb2_grpc,
    feedback_pb2,
    feedback_pb2_grpc,
    mesh_pb2,
    mesh_pb2_grpc,
    openai_pb2,
    openai_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
)
from ragmesh.generator.v1 import generator_pb2
from ragmesh.ingest.v1 import collections_pb2, documents_pb2, jobs_pb2
from ragmesh.retriever.v1 import index_pb2, retriever_pb2

# Each server of the mesh, in the order of a question's way, with its contract.
_SERVERS: Mapping[str, Sequence[FileDescriptor]] = {
    "gateway": [answers_pb2.DESCRIPTOR],
    "retriever_svc": [retriever_pb2.DESCRIPTOR, index_pb2.DESCRIPTOR],
    "generator_svc": [generator_pb2.DESCRIPTOR],
    "embedder_svc": [embedder_pb2.DESCRIPTOR],
    "ingest_svc": [collections_pb2.DESCRIPTOR, documents_pb2.DESCRIPTOR, jobs_pb2.DESCRIPTOR],
}


@asynccontextmanager
async def open_app(settings: Settings) -> AsyncIterator[App]:
    """The gateway with its channels and its store, none of which has to answer yet.

    No probe asks them: a gateway without them still says what is wrong, and answers without sessions.
    """
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(_open_stores(settings))
        channels = {
            server: await stack.enter_async_context(open_channel(target, settings.channel))
            for server, target in _targets(settings).items()
        }
        generators = await stack.enter_async_context(open_generators(settings))
        models = await stack.enter_async_context(open_models(generators.generator, settings.models_ttl_s))
        web = await stack.enter_async_context(_open_web(settings))
        retriever, embedder = RetrieverPeer(channels["retriever_svc"]), EmbedderPeer(channels["embedder_svc"])
        cache = await stack.enter_async_context(open_cache(settings, retriever, embedder))
        limits = _limits(settings)
        bounds = (settings.plan.summary_timeout_s, settings.plan.max_summaries)
        summarising = open_summaries(generators.generator, stores.sessions, *bounds)
        summaries = await stack.enter_async_context(summarising)
        parts = (retriever, generators.generator, models, stores.sessions, stores.answers, limits)
        ports = Ports(*parts, web=web, summaries=summaries)
        if settings.cache.enabled:
            ports = replace(ports, cache=cache)
        resuming = await stack.enter_async_context(open_resuming(settings, ports, stores.journal))
        registrations = _registrations(settings, stores, channels, generators, resuming)
        yield App(registrations, collectors=[CacheCollector(cache)])


@asynccontextmanager
async def _open_web(settings: Settings) -> AsyncIterator[Web | None]:
    """The web's search, where there is a key for it."""
    if not (key := settings.web_search_key).get_secret_value():
        yield None
        return
    bounds = (settings.tool_timeout_s, settings.max_web_search_bytes, settings.max_web_searches)
    async with open_tavily_web(settings.web_search_url, key, *bounds) as web:
        yield web


@dataclass(frozen=True, slots=True)
class _Stores:
    sessions: RedisSessions
    answers: RedisAnswers
    feedback: RedisFeedback
    journal: RedisJournal


@asynccontextmanager
async def _open_stores(settings: Settings) -> AsyncIterator[_Stores]:
    async with open_redis(settings.redis_url, settings.redis_timeout_s, settings.redis_max_connections) as redis:
        yield _Stores(
            RedisSessions(redis, settings.session_ttl_s, settings.max_session_turns, settings.max_sessions),
            RedisAnswers(redis, settings.answer_ttl_s),
            RedisFeedback(redis, settings.max_feedback),
            RedisJournal(redis, settings.resume.journal_ttl_s),
        )


@dataclass(frozen=True, slots=True)
class Generators:
    """The generator, and the servers that it has now."""

    generator: Generator
    servers: Callable[[], Sequence[ServerPeer]]


@asynccontextmanager
async def open_generators(settings: Settings, resolve: Resolve = resolve) -> AsyncIterator[Generators]:
    """The generator at one address, or over its replicas where the target may be several."""
    if is_several(settings.generator_target):
        async with _open_replicas(settings, resolve) as generators:
            yield generators
    else:
        async with open_channel(settings.generator_target, settings.channel) as channel:
            servers = [_server("generator_svc", settings.generator_target, channel, settings.status_timeout_s)]
            yield Generators(GeneratorPeer(channel), lambda: servers)


@asynccontextmanager
async def _open_replicas(settings: Settings, resolve: Resolve) -> AsyncIterator[Generators]:
    knobs = settings.replicas
    policy = Policy(knobs.load_factor, knobs.report_half_life_s, knobs.cooldown_s, knobs.cooldown_max_s)
    following = Following(knobs.resolve_s, knobs.resolve_timeout_s, drain_s=settings.max_deadline_s)
    # Whoever fails is not tried again: the next one is. What is asked in the background, the gateway asks itself.
    once = settings.channel.model_copy(update={"retry_attempts": 1})
    make = partial(make_channel, settings=once, identity=Identity("ragmesh", "gateway"))

    def make_caller(address: str, channel: grpc.aio.Channel) -> tuple[Replica, ServerPeer]:
        standing = Standing(address, policy)
        server = _server("generator_svc", address, channel, settings.status_timeout_s)
        return Replica(standing, GeneratorPeer(channel, standing.reported)), server

    async with open_replicas(settings.generator_target, make, make_caller, following, resolve) as replicas:

        def present() -> list[Replica]:
            return [replica for replica, _ in replicas.present]

        async with open_balanced_generator(present, knobs.poll_s, knobs.poll_timeout_s) as generator:
            yield Generators(generator, lambda: [server for _, server in replicas.present])


def _registrations(
    settings: Settings,
    stores: _Stores,
    channels: Mapping[str, grpc.aio.Channel],
    generators: Generators,
    resuming: Resuming,
) -> list[Registration]:
    models = resuming.ports.models
    catalog, encoder = IngestPeer(channels["ingest_svc"]), EmbedderPeer(channels["embedder_svc"])
    return [
        _registration(
            answers_pb2.DESCRIPTOR,
            answers_pb2_grpc.add_AnswerServiceServicer_to_server,
            AnswerService(resuming, settings.buffer_events),
        ),
        _registration(
            sessions_pb2.DESCRIPTOR,
            sessions_pb2_grpc.add_SessionServiceServicer_to_server,
            SessionService(stores.sessions),
        ),
        _registration(
            feedback_pb2.DESCRIPTOR,
            feedback_pb2_grpc.add_FeedbackServiceServicer_to_server,
            FeedbackService(stores.feedback, stores.answers),
        ),
        _registration(
            openai_pb2.DESCRIPTOR,
            openai_pb2_grpc.add_OpenAIServiceServicer_to_server,
            OpenAIService(resuming.underway, models, catalog, encoder),
        ),
        _registration(
            mesh_pb2.DESCRIPTOR,
            mesh_pb2_grpc.add_MeshServiceServicer_to_server,
            MeshService(_servers(settings, channels, generators), models),
        ),
        _registration(
            api_keys_pb2.DESCRIPTOR,
            api_keys_pb2_grpc.add_ApiKeyServiceServicer_to_server,
            # The stub's own methods answer NOT_IMPLEMENTED.
            api_keys_pb2_grpc.ApiKeyServiceServicer(),  # type: ignore[abstract]
        ),
    ]


def _registration(
    contract: FileDescriptor, add: Callable[[Any, grpc.aio.Server], None], servicer: object
) -> Registration:
    (service,) = contract.services_by_name.values()
    return Registration(service.full_name, add, servicer)


def _servers(
    settings: Settings, channels: Mapping[str, grpc.aio.Channel], generators: Generators
) -> Callable[[], list[ServerPeer]]:
    """The servers of now, in the order of a question's way."""
    others = {
        server: [_server(server, target, channels[server], settings.status_timeout_s)]
        for server, target in _targets(settings).items()
    }

    def servers() -> list[ServerPeer]:
        every = {**others, "generator_svc": generators.servers()}
        return [peer for server in _SERVERS for peer in every[server]]

    return servers


def _server(name: str, address: str, channel: grpc.aio.Channel, timeout_s: float) -> ServerPeer:
    services = [service for contract in _SERVERS[name] for service in _names(contract)]
    return ServerPeer(name, services, address, channel, timeout_s)


def _names(contract: FileDescriptor) -> list[str]:
    return [service.full_name for service in contract.services_by_name.values()]


def _targets(settings: Settings) -> dict[str, str]:
    return {
        "gateway": _own_target(settings.listen),
        "retriever_svc": settings.retriever_target,
        "embedder_svc": settings.embedder_target,
        "ingest_svc": settings.ingest_target,
    }


def _own_target(listen: str) -> str:
    """Where the gateway reaches itself: an address that means every interface is none to call."""
    host, _, port = listen.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("", "0.0.0.0", "[::]", "::", "*") else listen  # noqa: S104


def _limits(settings: Settings) -> Limits:
    return Limits(
        top_k=settings.top_k,
        history_turns=settings.history_turns,
        max_answer_tokens=settings.max_answer_tokens,
        save_timeout_s=settings.save_timeout_s,
        min_grounding=settings.min_grounding,
        tools=ToolLimits(
            settings.tool_timeout_s,
            settings.caller_tool_timeout_s,
            settings.max_tool_calls,
            settings.max_tool_result_bytes,
        ),
        planning=PlanLimits(
            settings.plan.consult_timeout_s,
            settings.plan.max_retrieval_rounds,
            settings.plan.max_tool_rounds,
            settings.history_tokens,
            settings.plan.reserve_s,
        ),
    )
