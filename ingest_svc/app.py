"""The wiring of the ingest service."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from google.protobuf.descriptor import FileDescriptor

from ingest_svc.budget import Budget
from ingest_svc.cancelling import Cancelling
from ingest_svc.chunking import Strategies
from ingest_svc.folder_source import FolderSources
from ingest_svc.following import Following
from ingest_svc.gathering import BatchLimits, open_gathering
from ingest_svc.importing import Importing
from ingest_svc.ingesting import Ingesting, Stages
from ingest_svc.intake import Intake, IntakeLimits
from ingest_svc.inviting import Inviting
from ingest_svc.job_running import JobLimits, JobRunning
from ingest_svc.job_starting import JobDesk
from ingest_svc.jobs import Sources
from ingest_svc.keeping import Keeping
from ingest_svc.object_events import ObjectEvents
from ingest_svc.object_folder import open_object_folder
from ingest_svc.objects import ObjectStore
from ingest_svc.obstore_inbox import ObstoreInbox
from ingest_svc.obstore_objects import open_obstore_objects
from ingest_svc.obstore_source import BucketSources
from ingest_svc.obstore_store import StoreOptions
from ingest_svc.parser_processes import ParserLimits, open_parser_processes
from ingest_svc.peers import EmbedderPeer, RetrieverPeer
from ingest_svc.pipeline import Pipeline, PipelineLimits
from ingest_svc.redis_catalog import DOCUMENT_WORK, VECTOR_WORK, RedisCatalog
from ingest_svc.redis_jobs import JOB_WORK, RedisJobs
from ingest_svc.redis_locks import RedisLocks
from ingest_svc.redis_progress import RedisProgress, open_redis_progress
from ingest_svc.redis_queue import RedisQueue
from ingest_svc.redis_telling import RedisTelling
from ingest_svc.reindexing import Reindexing
from ingest_svc.retrying import Attempts, Patience
from ingest_svc.service import ChunkingService, CollectionService, DocumentService
from ingest_svc.service_jobs import JobService
from ingest_svc.settings import Settings
from ingest_svc.sources import SourcesByScheme
from ingest_svc.strategies.loading import load_strategies
from ingest_svc.taking import Taking
from ingest_svc.uploading import Uploading
from ingest_svc.work import Lane, Pace, open_workers
from meshkit.admission import Permits
from meshkit.channel import open_channel
from meshkit.redis_store import answers, open_redis
from meshkit.server import App, Registration
from ragmesh.ingest.v1 import (
    chunking_pb2,
    chunking_pb2_grpc,
    collections_pb2,
    collections_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
)

_PART_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Queues:
    """Documents to be read and to be encoded, all and the uploads among them; and jobs."""

    documents: RedisQueue
    read_uploads: RedisQueue
    vectors: RedisQueue
    encoded_uploads: RedisQueue
    jobs: RedisQueue


@dataclass(frozen=True, slots=True)
class _Stores:
    """What state is kept in."""

    catalog: RedisCatalog
    jobs: RedisJobs
    locks: RedisLocks
    bus: RedisProgress
    telling: RedisTelling
    objects: ObjectStore
    inbox: ObstoreInbox | None
    queues: _Queues
    answer: Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class _Core:
    """What the services and the workers share."""

    encoder: EmbedderPeer
    index: RetrieverPeer
    strategies: Strategies
    sources: SourcesByScheme
    pipeline: Pipeline
    intake: Intake


@asynccontextmanager
async def open_app(settings: Settings) -> AsyncIterator[App]:
    """The services and the workers of one process; Redis and the peers need not answer yet."""
    async with AsyncExitStack() as stack:
        stores = await _open_stores(settings, stack)
        core = await _open_core(settings, stores, stack)
        await _open_workers(settings, stores, core, stack)
        registrations = _registrations(settings, stores, core)
        needing = [each.name for each in registrations if not isinstance(each.servicer, ChunkingService)]
        yield App(registrations, probes=dict.fromkeys(needing, stores.answer))


async def _open_stores(settings: Settings, stack: AsyncExitStack) -> _Stores:
    redis = await stack.enter_async_context(
        open_redis(settings.redis_url, settings.redis_timeout_s, settings.redis_max_connections)
    )
    bus = open_redis_progress(redis, settings.watch_buffer, settings.retry_backoff_s)
    queue = partial(RedisQueue, redis, claim_idle_s=settings.claim_idle_s, block_s=settings.queue_block_s)
    return _Stores(
        catalog=RedisCatalog(redis, settings.request_id_ttl_s),
        jobs=RedisJobs(redis, settings.request_id_ttl_s, settings.job_retention_s, settings.max_open_jobs),
        locks=RedisLocks(redis, settings.claim_idle_s),
        bus=await stack.enter_async_context(bus),
        telling=RedisTelling(redis),
        objects=await stack.enter_async_context(_objects(settings)),
        inbox=_inbox(settings),
        queues=_Queues(
            documents=queue(DOCUMENT_WORK, max_per_tenant=_share(settings.document_workers + settings.vector_workers)),
            read_uploads=queue(DOCUMENT_WORK, [Lane.UPLOADS]),
            vectors=queue(VECTOR_WORK, max_per_tenant=_share(settings.vector_workers)),
            encoded_uploads=queue(VECTOR_WORK, [Lane.UPLOADS]),
            jobs=queue(JOB_WORK, max_per_tenant=settings.max_running_jobs),
        ),
        answer=partial(answers, redis),
    )


def _objects(settings: Settings) -> AbstractAsyncContextManager[ObjectStore]:
    place, expiry = settings.object_place, (settings.upload_ttl_s, settings.upload_expiry_interval_s)
    if place is None:
        return open_object_folder(settings.object_folder, *expiry)
    return open_obstore_objects(place, _store_options(settings), settings.object_store_part_bytes, *expiry)


def _inbox(settings: Settings) -> ObstoreInbox | None:
    place = settings.object_place
    return ObstoreInbox(place, _store_options(settings), settings.upload_url_ttl_s) if place else None


def _share(workers: int) -> int:
    """How many of the workers one tenant may have: a quarter is left to others, whatever takes the rest so long."""
    return workers - max(workers // 4, 1) if workers > 1 else 0


async def _open_core(settings: Settings, stores: _Stores, stack: AsyncExitStack) -> _Core:
    embedder = await stack.enter_async_context(open_channel(settings.embedder_target, settings.channel))
    retriever = await stack.enter_async_context(open_channel(settings.retriever_target, settings.channel))
    parsing = ParserLimits(
        timeout_s=settings.parser_timeout_s,
        max_memory_bytes=settings.parser_max_memory_bytes,
        max_text_bytes=settings.max_text_bytes,
        ocr_languages=settings.ocr_languages,
        max_idle_bytes=settings.parser_idle_memory_bytes,
    )
    parser = await stack.enter_async_context(open_parser_processes(settings.parser_processes, parsing))
    encoder, index = EmbedderPeer(embedder), RetrieverPeer(retriever)
    strategies = load_strategies()
    batches = BatchLimits(settings.max_batch_tokens, settings.max_batch_chunks, settings.encoder_stream_s)
    gathering = await stack.enter_async_context(open_gathering(encoder, batches))
    bounds = PipelineLimits(
        settings.max_batch_tokens, settings.max_batch_chunks, settings.max_tokenize_bytes, settings.max_kept_bytes
    )
    pipeline = Pipeline(parser, stores.objects, encoder, gathering, index, strategies, bounds)
    limits = IntakeLimits(settings.max_document_bytes, settings.max_metadata_bytes, settings.lock_wait_s)
    return _Core(
        encoder=encoder,
        index=index,
        strategies=strategies,
        sources=_sources(settings, stores.inbox),
        pipeline=pipeline,
        intake=Intake(stores.catalog, stores.objects, index, pipeline, stores.locks, strategies, limits),
    )


def _sources(settings: Settings, inbox: ObstoreInbox | None) -> SourcesByScheme:
    folders = FolderSources(settings.allowed_roots, settings.max_job_files)
    buckets = BucketSources(settings.allowed_places, _store_options(settings), settings.max_job_files)
    waiting: dict[str, Sources] = {"upload": inbox} if inbox else {}
    return SourcesByScheme({"file": folders, "s3": buckets, "gs": buckets, "az": buckets, **waiting})


def _store_options(settings: Settings) -> StoreOptions:
    return StoreOptions(settings.object_store_timeout_s, settings.s3_endpoint_url, settings.s3_region)


async def _open_workers(settings: Settings, stores: _Stores, core: _Core, stack: AsyncExitStack) -> None:
    pace = Pace(settings.heartbeat_s, settings.retry_backoff_s, settings.retry_backoff_max_s)
    patience = Patience(
        attempt_timeout_s=settings.attempt_timeout_s,
        max_attempts=settings.max_attempts,
        retry_for_s=settings.retry_for_s,
        lock_wait_s=settings.lock_wait_s,
        pace=pace,
    )
    cancelling = Cancelling(stores.jobs, settings.cancel_poll_s)
    ingesting = Ingesting(
        stores.catalog,
        stores.jobs,
        core.pipeline,
        core.index,
        stores.locks,
        stores.bus,
        Attempts(cancelling, patience),
        Stages(
            stores.queues.vectors,
            Budget(settings.encoding_memory_bytes),
            settings.max_batch_tokens,
            settings.document_workers,
            stores.telling,
        ),
    )
    limits = JobLimits(settings.max_job_documents_under_way, settings.job_poll_s)
    taking = Taking(stores.catalog, stores.jobs, core.intake, stores.objects, stores.locks, stores.bus, _PART_BYTES)
    reindexing = Reindexing(
        stores.catalog,
        stores.jobs,
        core.pipeline,
        core.index,
        stores.locks,
        stores.bus,
        patience,
    )
    running = JobRunning(stores.catalog, stores.jobs, taking, core.sources, reindexing, stores.bus, cancelling, limits)
    queues = stores.queues
    for queue, handle, count in (
        (queues.documents, ingesting.read, settings.document_workers + settings.vector_workers),
        (queues.read_uploads, ingesting.read, settings.upload_workers),
        (queues.vectors, ingesting.encode, settings.vector_workers),
        (queues.encoded_uploads, ingesting.encode, settings.upload_workers),
        (queues.jobs, running, settings.job_workers),
    ):
        await stack.enter_async_context(open_workers(queue, handle, count, pace))


def _registrations(settings: Settings, stores: _Stores, core: _Core) -> Sequence[Registration]:
    keeping = Keeping(
        stores.catalog,
        stores.objects,
        core.encoder,
        core.index,
        stores.locks,
        core.strategies,
        settings.lock_wait_s,
    )
    following = Following(stores.catalog, stores.bus, settings.watch_poll_s)
    permits = Permits(settings.max_uploads, settings.overload_retry_after_s)
    uploading = Uploading(core.intake, stores.objects, following, permits, settings.progress_bytes)
    importing = Importing(
        stores.catalog,
        stores.objects,
        core.index,
        core.pipeline,
        core.intake,
        stores.locks,
        permits,
        settings.max_import_bytes,
    )
    desk = JobDesk(
        stores.catalog,
        stores.jobs,
        core.sources,
        core.encoder,
        core.strategies,
        stores.bus,
        settings.watch_poll_s,
    )
    inviting = Inviting(stores.catalog, core.intake, stores.inbox)
    events = ObjectEvents(stores.catalog, desk, settings.allowed_places)
    return [
        _registration(
            collections_pb2.DESCRIPTOR,
            collections_pb2_grpc.add_CollectionServiceServicer_to_server,
            CollectionService(keeping, stores.catalog, core.index),
        ),
        _registration(
            documents_pb2.DESCRIPTOR,
            documents_pb2_grpc.add_DocumentServiceServicer_to_server,
            DocumentService(stores.catalog, core.intake, uploading, importing, following, inviting),
        ),
        _registration(
            jobs_pb2.DESCRIPTOR,
            jobs_pb2_grpc.add_JobServiceServicer_to_server,
            JobService(desk, stores.jobs, events),
        ),
        _registration(
            chunking_pb2.DESCRIPTOR,
            chunking_pb2_grpc.add_ChunkingServiceServicer_to_server,
            ChunkingService(core.strategies),
        ),
    ]


def _registration(file: FileDescriptor, add: Callable[..., None], servicer: object) -> Registration:
    """The file's one service."""
    (service,) = file.services_by_name.values()
    return Registration(service.full_name, add, servicer)
