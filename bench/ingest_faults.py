"""Whether a job loses or doubles anything when what works on it is killed.

Each trial takes in a folder by a job, sends SIGKILL to a victim at a random moment of it (drawn by SEED), waits for
the job's end with nobody's help, and compares what can be found with what the same folder gives undisturbed: every
document, each of its chunks once. Victims are ingest_svc, one of its parsers, retriever_svc and Redis, KILLS times
each. Ends with exit code 1 where a trial was not whole.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
from rich.console import Console
from rich.table import Table

from bench.harness import Row, document, write
from bench.retrieval import Served, open_served
from ragmesh.ingest.v1 import collections_pb2, documents_pb2, jobs_pb2
from ragmesh.retriever.v1 import index_pb2, retriever_pb2

VICTIMS = ("ingest", "parser", "retriever", "redis")
DOCUMENTS, PARAGRAPHS = 24, 6
_TIMEOUT_S = 180.0
_POLL_S = 0.05
# A worker that was killed is missed after this long, the default being 30 s: trials are many.
_SETTINGS = {
    "RAGMESH_INGEST_CLAIM_IDLE_S": "3",
    "RAGMESH_INGEST_HEARTBEAT_S": "0.5",
    # Every trial encodes its texts anew.
    "RAGMESH_EMBEDDER_REDIS_URL": "",
}
_SPARSE, _DENSE = retriever_pb2.SEARCH_MODE_SPARSE, retriever_pb2.SEARCH_MODE_DENSE
_TOP_K = 1000
_RUNNING = (jobs_pb2.Job.STATE_PENDING, jobs_pb2.Job.STATE_RUNNING)


@dataclass
class Trials:
    """What became of a victim's trials."""

    recovered_s: list[float] = field(default_factory=list)
    """Seconds from each kill to the job's end, less what was left of an undisturbed job."""
    broken: list[str] = field(default_factory=list)


Found = Mapping[str, Sequence[str]]
"""The chunks that a word of each document finds."""


class Faults:
    """Runs trials on served services; lives as long as they."""

    def __init__(self, served: Served, source: Path, chance: random.Random) -> None:
        self._served = served
        self._source = source
        self._chance = chance
        self._number = 0

    async def undisturbed(self) -> tuple[Found, float]:
        """What can be found after a job that nobody disturbs, and the seconds it took."""
        began_s = time.monotonic()
        collection = await self._start()
        await self._ended()
        took_s = time.monotonic() - began_s
        return await self._found(collection), took_s

    async def trial(self, victim: str, expected: Found, usual_s: float, trials: Trials) -> None:
        """One kill; what went wrong is added to the trials."""
        await self._all_serve()
        began_s = time.monotonic()
        collection = await self._start()
        await asyncio.sleep(self._chance.uniform(0, usual_s))
        killed_s = time.monotonic()
        self._kill(victim)
        try:
            job = await self._ended()
            found = await self._found_at_last(collection)
        except (TimeoutError, grpc.aio.AioRpcError) as error:
            trials.broken.append(f"{killed_s - began_s:.2f} s: {error!r}")
            return
        left_s = max(usual_s - (killed_s - began_s), 0.0)
        trials.recovered_s.append(max(time.monotonic() - killed_s - left_s, 0.0))
        wrong = [name for name in expected if sorted(found.get(name, ())) != sorted(expected[name])]
        if wrong or job.state != jobs_pb2.Job.STATE_SUCCEEDED or job.counts.failed:
            trials.broken.append(f"{killed_s - began_s:.2f} s: {job.counts} {wrong}")

    async def _start(self) -> str:
        self._number += 1
        collection = f"trial-{self._number}"
        stubs = self._served.stubs
        await stubs.collections.CreateCollection(
            collections_pb2.CreateCollectionRequest(collection_id=collection), timeout=_TIMEOUT_S
        )
        request = jobs_pb2.StartJobRequest(collection=f"collections/{collection}", source_uri=self._source.as_uri())
        self._job = (await stubs.jobs.StartJob(request, timeout=_TIMEOUT_S)).job.name
        return collection

    async def _all_serve(self) -> None:
        """Return when what an earlier trial killed is whole again, the services' view of each other included."""
        await self._are_up()
        request = collections_pb2.CreateCollectionRequest(collection_id=f"before-{self._number}")
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                try:
                    await self._served.stubs.collections.CreateCollection(request, timeout=_TIMEOUT_S)
                    return
                except grpc.aio.AioRpcError as error:
                    if error.code() is grpc.StatusCode.ALREADY_EXISTS:
                        return
                    await asyncio.sleep(_POLL_S)

    async def _are_up(self) -> None:
        for process in self._served.processes.values():
            await process.serving()

    def _kill(self, victim: str) -> None:
        processes = self._served.processes
        if victim != "parser":
            processes[victim].kill()
            return
        with suppress(psutil.NoSuchProcess):
            parsers = psutil.Process(processes["ingest"].pid).children(recursive=True)
            if parsers:
                self._chance.choice(parsers).kill()

    async def _ended(self) -> jobs_pb2.Job:
        """The job as it ended. Services that are away are waited for, as a user would."""
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                with suppress(grpc.aio.AioRpcError):
                    answer = await self._served.stubs.jobs.GetJob(
                        jobs_pb2.GetJobRequest(name=self._job), timeout=_TIMEOUT_S
                    )
                    if answer.job.state not in _RUNNING:
                        job: jobs_pb2.Job = answer.job
                        return job
                await asyncio.sleep(_POLL_S)

    async def _found_at_last(self, collection: str) -> Found:
        """What is found once all answer: the job may have ended before the kill, and a service be away still."""
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                await self._are_up()
                try:
                    return await self._found(collection)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    await asyncio.sleep(_POLL_S)

    async def _found(self, collection: str) -> Found:
        """The chunks that each document's own word finds; raises where the records or the counts say otherwise."""
        parent, stubs = f"collections/{collection}", self._served.stubs
        listed = await stubs.documents.ListDocuments(
            documents_pb2.ListDocumentsRequest(parent=parent, page_size=1000), timeout=_TIMEOUT_S
        )
        index = (await stubs.index.GetIndex(index_pb2.GetIndexRequest(collection=parent), timeout=_TIMEOUT_S)).index
        dense = [each.rpartition("/chunks/")[0] for each in await self._hits(parent, "anything", _DENSE)]
        found: dict[str, Sequence[str]] = {}
        for one in listed.documents:
            names = await self._hits(parent, Path(one.uri).stem, _SPARSE)
            places = [each.removeprefix(one.name) for each in names]
            if one.state != documents_pb2.Document.STATE_READY or dense.count(one.name) != len(places):
                places.append(f"{documents_pb2.Document.State.Name(one.state)}, {dense.count(one.name)} by vectors")
            found[Path(one.uri).name] = places
        chunks = sum(len(names) for names in found.values())
        if (index.document_count, index.chunk_count) != (len(listed.documents), chunks):
            found["index"] = [f"{index.document_count} documents", f"{index.chunk_count} chunks"]
        return found

    async def _hits(self, parent: str, query: str, mode: retriever_pb2.SearchMode.ValueType) -> list[str]:
        """The names of the chunks that a half of the index finds; by vectors that is all of them."""
        request = retriever_pb2.SearchRequest(collection=parent, query=query, mode=mode, top_k=_TOP_K)
        answer = await self._served.stubs.retriever.Search(request, timeout=_TIMEOUT_S)
        return [hit.chunk.name for hit in answer.hits]


async def measure(kills: int, seed: int) -> bool:
    """Runs all trials, prints what became of them and writes `build/bench/ingest-faults.json`."""
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    outcome = {victim: Trials() for victim in VICTIMS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = _write_source(folder / "source", chance)
        variables = {**_SETTINGS, "RAGMESH_INGEST_SOURCE_ROOTS": str(source)}
        async with open_served(folder, variables) as served:
            faults = Faults(served, source, chance)
            await faults.undisturbed()
            expected, usual_s = await faults.undisturbed()
            for number in range(kills):
                for victim, trials in outcome.items():
                    await faults.trial(victim, expected, usual_s, trials)
                    print(f"{number + 1}/{kills} {victim}: {trials.broken or 'whole'}", file=sys.stderr)
    _report(outcome, kills, usual_s)
    return not any(trials.broken for trials in outcome.values())


def _write_source(folder: Path, chance: random.Random) -> Path:
    """Documents, in each paragraph of which stands a word that no other document has."""
    folder.mkdir()
    words = [f"{first}{second}" for first in ("ka", "lo", "mi", "ne", "su") for second in ("ran", "tel", "vor", "dim")]
    for number in range(DOCUMENTS):
        own = f"zq{number:03}x"
        paragraphs = [f"# About {own}"]
        paragraphs += [f"The {own} {' '.join(chance.choices(words, k=90))}." for _ in range(PARAGRAPHS)]
        (folder / f"{own}.md").write_text("\n\n".join(paragraphs))
    return folder.resolve()


def _report(outcome: Mapping[str, Trials], kills: int, usual_s: float) -> None:
    table = Table("killed", "times", "whole", "recovery p50, s", "longest, s")
    rows = []
    for victim, trials in outcome.items():
        recovered = trials.recovered_s or [float("nan")]
        half, longest = statistics.median(recovered), max(recovered)
        table.add_row(victim, str(kills), str(kills - len(trials.broken)), f"{half:.1f}", f"{longest:.1f}")
        rows += [
            Row("whole", victim, kills - len(trials.broken), "trials", kills),
            Row("recovery_p50_s", victim, half, "s", kills),
            Row("recovery_max_s", victim, longest, "s", kills),
        ]
    console = Console(width=120)
    console.print(table)
    console.print(f"{DOCUMENTS} documents a job, {usual_s:.1f} s undisturbed; killed at a random moment of it")
    for victim, trials in outcome.items():
        for words in trials.broken:
            console.print(f"{victim} at {words}", markup=False)
    write("ingest-faults", rows)
    document("ingest-faults", rows)


if __name__ == "__main__":
    whole = asyncio.run(measure(int(os.environ.get("KILLS", "20")), int(os.environ.get("SEED", "1"))))
    raise SystemExit(0 if whole else 1)
