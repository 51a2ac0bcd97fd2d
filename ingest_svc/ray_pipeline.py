"""The adapter to Ray Data: files through both stages on the actors of a cluster, in small blocks."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray import cloudpickle
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from ingest_svc.jobs import Entry, Settled
from ingest_svc.ray_stages import Plan, Read, open_reading, open_writing
from meshkit.errors import Unavailable, map_exceptions

# The column that all blocks have: a pickled Entry, Read or Settled a row.
_WORK = "work"
_STOP_TIMEOUT_S = 10.0
# Bytes of a block between the stages; a document that has more is a block by itself.
_BLOCK_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where Ray runs (`local` starts one for the run), and how many actors each stage has there.

    A writer takes `gpus` of a node's GPUs; a reader takes a CPU.
    """

    address: str
    readers: int
    writers: int
    gpus: float = 0.0
    documents_per_block: int = 8


@contextmanager
def open_ray(cluster: Cluster) -> Iterator[None]:
    """A connection to the cluster for the body, or a cluster of its own."""
    # Forks of a process that speaks gRPC may hang without it. Workers of our own have it from us.
    environment: dict[str, Any] = {"runtime_env": {"env_vars": {"GRPC_ENABLE_FORK_SUPPORT": "0"}}}
    local = {"num_cpus": cluster.readers + 1, "include_dashboard": False}
    options = local if cluster.address == "local" else environment
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with map_exceptions({ConnectionError: _unavailable, RayError: _unavailable}):
        ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False, **options)
        try:
            yield
        finally:
            ray.shutdown()


def run(cluster: Cluster, plan: Plan, entries: Sequence[Entry]) -> Iterator[Settled]:
    """What becomes of each file, as it is known; within `open_ray`.

    Work on a worker that dies is done again, as often as it takes, so that a file may come twice; the mesh takes it
    once. Files whose block was lost do not come at all.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = _BLOCK_BYTES
    context.max_errored_blocks = -1
    blocks = -(-len(entries) // cluster.documents_per_block)
    files = ray.data.from_items([{_WORK: cloudpickle.dumps(entry)} for entry in entries], override_num_blocks=blocks)
    read = files.map_batches(
        _Reader,
        fn_constructor_args=(plan,),
        compute=ActorPoolStrategy(min_size=1, max_size=cluster.readers, max_tasks_in_flight_per_actor=2),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
    )
    settled = read.map_batches(
        _Writer,
        fn_constructor_args=(plan,),
        compute=ActorPoolStrategy(min_size=1, max_size=cluster.writers, max_tasks_in_flight_per_actor=2),
        batch_size=None,
        batch_format="pyarrow",
        # Without a GPU it waits for the mesh more than it works.
        num_cpus=1 if cluster.gpus else 0.25,
        num_gpus=cluster.gpus,
    )
    for batch in settled.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from _loaded(batch)


class _Reader:
    """An actor of the first stage."""

    def __init__(self, plan: Plan) -> None:
        self._stage = _Stage(lambda: open_reading(plan))

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        # One a block: what a document's bytes take up is not added to that of others.
        for done in self._stage.each(_loaded(batch)):
            yield _dumped([done])


class _Writer:
    """An actor of the second stage; what was settled before passes through."""

    def __init__(self, plan: Plan) -> None:
        self._stage = _Stage(lambda: open_writing(plan))

    def __call__(self, batch: pa.Table) -> pa.Table:
        works = _loaded(batch)
        read = [work for work in works if isinstance(work, Read)]
        settled = [work for work in works if isinstance(work, Settled)]
        return _dumped([*settled, *self._stage.each(read)])


class _Stage:
    """A stage in a loop and a thread of its own, since Ray calls actors from any; ends with its actor."""

    def __init__(self, open_stage: Callable[[], AbstractAsyncContextManager[Callable[[Any], Any]]]) -> None:
        self._open_stage = open_stage
        self._opened: Future[tuple[Callable[[Any], Any], asyncio.Event]] = Future()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._work, self._stop = self._opened.result()

    def each(self, works: Sequence[Any]) -> Iterator[Any]:
        """What comes of each, in order; all are at work at once."""
        under_way = [asyncio.run_coroutine_threadsafe(self._work(work), self._loop) for work in works]
        for future in under_way:
            yield future.result()

    def __del__(self) -> None:
        if self._opened.done() and self._opened.exception() is None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_STOP_TIMEOUT_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        stop = asyncio.Event()
        try:
            async with self._open_stage() as work:
                self._opened.set_result((work, stop))
                await stop.wait()
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)


def _unavailable(error: Exception) -> Unavailable:
    message = f"the Ray cluster fails: {str(error).partition(chr(10))[0]}"
    return Unavailable("PEER_UNAVAILABLE", message, metadata={"peer": "ray"})


def _loaded(batch: pa.Table) -> list[Any]:
    # What another process of this run dumped.
    return [cloudpickle.loads(work) for work in batch[_WORK].to_pylist()]


def _dumped(works: Sequence[Any]) -> pa.Table:
    return pa.table({_WORK: pa.array([cloudpickle.dumps(work) for work in works], pa.large_binary())})
