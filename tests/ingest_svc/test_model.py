"""The index against a model, over random sequences of what people, jobs and crashes do to it."""

import asyncio
import itertools
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest_svc.intake import document_id
from meshkit.testing import connect
from ragmesh.ingest.v1 import collections_pb2, documents_pb2, jobs_pb2
from tests.ingest_svc.conftest import ALICE, Client, settings_of
from tests.ingest_svc.peers import Peers, open_peers
from tests.ingest_svc.test_durability import free_port, process, until_serving
from tests.redis_server import RedisServer

# `make check-ingest-model` tries more of them.
EXAMPLES = int(os.environ.get("EXAMPLES", "6"))
FILES = ("a.md", "b.md", "c.txt", "sub/d.md")
_ENDED = (documents_pb2.Document.STATE_READY, documents_pb2.Document.STATE_FAILED)


@dataclass(frozen=True)
class Write:
    """A file of the source gets this content."""

    file: str
    content: int


@dataclass(frozen=True)
class Remove:
    """A file of the source goes."""

    file: str


@dataclass(frozen=True)
class Ingest:
    """A job over the source; the service is killed once the index was written so often, where that is not None."""

    delete_missing: bool
    crash_after: int | None


@dataclass(frozen=True)
class Upload:
    """A document of its own is given; the service is killed as soon as it is stored, where `crash` says so."""

    id: str
    content: int
    crash: bool


@dataclass(frozen=True)
class Delete:
    """An uploaded document is deleted."""

    id: str


BROKEN = 5
contents = st.integers(0, BROKEN)
steps = st.lists(
    st.one_of(
        st.builds(Write, st.sampled_from(FILES), contents),
        st.builds(Write, st.sampled_from(FILES), contents),
        st.builds(Remove, st.sampled_from(FILES)),
        st.builds(Ingest, st.booleans(), st.none() | st.integers(0, 3)),
        st.builds(Upload, st.sampled_from(("u", "v")), contents, st.booleans()),
        st.builds(Delete, st.sampled_from(("u", "v"))),
    ),
    min_size=4,
    max_size=10,
).map(lambda drawn: [*drawn, Ingest(delete_missing=True, crash_after=None)])


def words_of(content: int) -> str:
    """A text of some paragraphs; the more, the greater the number. BROKEN is what no parser can read."""
    if content == BROKEN:
        return "%PDF-1.7 and nothing more"
    return "\n\n".join(f"Content {content} says paragraph {number}. " * 12 for number in range(content + 1))


@dataclass
class Play:
    """One sequence on a collection of its own, and what the model expects to be found."""

    client: Client
    peers: Peers
    collection: str
    source: Path
    files: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    uploaded: set[str] = field(default_factory=set)

    def expect(self, id: str, content: int) -> None:
        """Something was given: what cannot be read leaves what was there."""
        if content != BROKEN:
            self.expected[id] = content

    def held(self) -> dict[str, list[str]]:
        """The texts of the chunks that the index holds, by document; each chunk once and in order."""
        held = self.peers.index.held["acme", self.collection]
        found = {}
        for name, chunks in held.documents.items():
            assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks))), name
            found[name.rpartition("/")[2]] = [chunk.text for chunk in chunks]
        return found

    def check(self) -> None:
        """Compare the index with the model."""
        held = self.held()
        assert held.keys() == self.expected.keys()
        for id, texts in held.items():
            wanted = words_of(self.expected[id]).split("\n\n")
            assert {text for text in texts if f"Content {self.expected[id]} " in text} == set(texts), id
            assert all(any(f"paragraph {number}." in text for text in texts) for number in range(len(wanted))), id

    @property
    def writes(self) -> int:
        """How often this collection's index was written."""
        return sum(count for name, count in self.peers.index.writes.items() if name.startswith(f"{self.collection}/"))


class Service:
    """The service in a process of its own, killed and started again; its peers live on. An async context manager."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self._folder = folder
        self._redis = redis
        self._running = AsyncExitStack()
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.peers = await stack.enter_async_context(open_peers())
            self.peers.embedder.behaviour.embed_pause_s = 0.02
            self._listen = f"127.0.0.1:{free_port()}"
            self._channel = await stack.enter_async_context(connect(self._listen, ALICE))
            self.client = Client(self._channel)
            values = settings_of(self._folder, self._redis, self.peers, listen=self._listen)
            self._settings = values.model_dump(exclude_unset=True, exclude={"channel"})
            stack.push_async_callback(self._end)
            await self._start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _end(self) -> None:
        await self._running.aclose()

    async def _start(self) -> None:
        self._process = await self._running.enter_async_context(process(self._settings))
        await until_serving(self._channel)

    async def crash(self) -> None:
        """SIGKILL, and another process on the same address."""
        self._process.kill()
        await self._running.aclose()
        self._running = AsyncExitStack()
        await self._start()

    async def play(self, sequence: list[Any]) -> None:
        """Do the steps, and compare after each that changes the index."""
        number = next(self._numbers)
        source = self._folder / "source" / str(number)
        source.mkdir(parents=True)
        collection = await self.client.create_collection(f"model-{number}")
        play = Play(self.client, self.peers, collection.name, source)
        for step in sequence:
            async with asyncio.timeout(60):
                await self._do(step, play)
        await self.client.collections.DeleteCollection(
            collections_pb2.DeleteCollectionRequest(name=collection.name, force=True)
        )

    async def _do(self, step: Any, play: Play) -> None:
        match step:
            case Write(file, content):
                path = play.source / file
                path.parent.mkdir(exist_ok=True)
                path.write_text(words_of(content))
                play.files[file] = content
            case Remove(file):
                (play.source / file).unlink(missing_ok=True)
                play.files.pop(file, None)
            case Ingest():
                await self._ingest(step, play)
                play.check()
            case Upload():
                await self._upload(step, play)
                play.check()
            case Delete(id):
                await self._delete(id, play)
                play.check()

    async def _ingest(self, step: Ingest, play: Play) -> None:
        before = play.writes
        request = jobs_pb2.StartJobRequest(
            collection=play.collection, source_uri=play.source.as_uri(), delete_missing=step.delete_missing
        )
        name = (await self.client.jobs.StartJob(request)).job.name
        if step.crash_after is not None:
            while play.writes < before + step.crash_after and not await self._ended(name):
                await asyncio.sleep(0.005)
            await self.crash()
        while not await self._ended(name):
            await asyncio.sleep(0.02)
        job = (await self.client.jobs.GetJob(jobs_pb2.GetJobRequest(name=name))).job
        broken = list(play.files.values()).count(BROKEN)
        assert (job.state, job.counts.failed) == (jobs_pb2.Job.STATE_SUCCEEDED, broken), job
        assert job.counts.ready + job.counts.unchanged == len(play.files) - broken, job
        uri = play.source.as_uri()
        present = {document_id(f"{uri}/{file}"): content for file, content in play.files.items()}
        if step.delete_missing:
            play.expected = {id: what for id, what in play.expected.items() if id in {"u", "v", *present}}
        for id, content in present.items():
            play.expect(id, content)

    async def _ended(self, name: str) -> bool:
        job = (await self.client.jobs.GetJob(jobs_pb2.GetJobRequest(name=name))).job
        return job.state not in (jobs_pb2.Job.STATE_PENDING, jobs_pb2.Job.STATE_RUNNING)

    async def _upload(self, step: Upload, play: Play) -> None:
        text = words_of(step.content)
        document = await self.client.create(text, wait=False, into=play.collection, document_id=step.id)
        if step.crash:
            await self.crash()
        while (await self.client.get(document.name)).state not in _ENDED:
            await asyncio.sleep(0.02)
        play.uploaded.add(step.id)
        play.expect(step.id, step.content)
        ready = (await self.client.get(document.name)).state == documents_pb2.Document.STATE_READY
        assert ready == (step.id in play.expected)

    async def _delete(self, id: str, play: Play) -> None:
        request = documents_pb2.DeleteDocumentRequest(name=f"{play.collection}/documents/{id}")
        play.expected.pop(id, None)
        if id not in play.uploaded:
            with pytest.raises(grpc.aio.AioRpcError, match="not found"):
                await self.client.documents.DeleteDocument(request)
        else:
            play.uploaded.remove(id)
            await self.client.documents.DeleteDocument(request)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all the sequences."""
    with asyncio.Runner() as running:
        yield running


@pytest.mark.timeout(60 + 20 * EXAMPLES)
def test_the_index_is_as_the_model_says(tmp_path: Path, empty_redis: RedisServer, runner: asyncio.Runner) -> None:
    """Whatever is added, changed, deleted, given again or killed meanwhile: each document as last given, once."""
    service = Service(tmp_path, empty_redis)

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(steps)
    def check(sequence: list[Any]) -> None:
        runner.run(service.play(sequence))

    runner.run(service.__aenter__())
    try:
        check()
    finally:
        runner.run(service.__aexit__())
