"""When a new document can be found while a long backlog waits: by its words, by its vectors, and never by half."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from bench.ingest_corpus import letters
from bench.ingest_served import COLLECTION, READY, Served
from meshkit.channel import peer_errors, streaming
from ragmesh.ingest.v1 import documents_pb2
from ragmesh.retriever.v1 import retriever_pb2

_SENTENCES = 60
_TOP_K = 100
_POLL_S = 0.05
_TIMEOUT_S = 900.0
_ENDED = (READY, documents_pb2.Document.STATE_FAILED)


@dataclass
class Fresh:
    """A document uploaded beside the backlog; seconds are from its last byte."""

    words_s: float | None = None
    """Until BM25 found it; None where it never did."""
    vectors_s: float = 0.0
    """Until it was ready."""
    chunks: int = 0
    counts: set[int] = field(default_factory=set)
    """How many of its chunks BM25 found at each look."""

    @property
    def seen_by_half(self) -> bool:
        """Whether ever some of its chunks were found and not all."""
        return not self.counts <= {0, self.chunks}


async def upload_each(served: Served, interval_s: float, ended: asyncio.Event) -> list[Fresh]:
    """Upload a new document at each interval until `ended`, watching each; returns when all are ready."""
    tasks: list[asyncio.Task[Fresh]] = []
    async with asyncio.TaskGroup() as group:
        while not ended.is_set():
            tasks.append(group.create_task(_watched(served, letters(len(tasks)))))
            try:
                async with asyncio.timeout(interval_s):
                    await ended.wait()
            except TimeoutError:
                continue
    return [task.result() for task in tasks]


async def _watched(served: Served, word: str) -> Fresh:
    fresh, sent, ready = Fresh(), asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_look(served, word, fresh, sent, ready))
        began_s = await _upload(served, word, sent, fresh)
        fresh.vectors_s = time.perf_counter() - began_s
        ready.set()
    return fresh


async def _look(served: Served, word: str, fresh: Fresh, sent: asyncio.Event, ready: asyncio.Event) -> None:
    """Search for the word until the document is ready, and once more."""
    await sent.wait()
    began_s = time.perf_counter()
    while True:
        last = ready.is_set()
        hits = await served.hits(word, retriever_pb2.SEARCH_MODE_SPARSE, _TOP_K)
        count = hits[f"{COLLECTION}/documents/{word}"]
        fresh.counts.add(count)
        if count and fresh.words_s is None:
            fresh.words_s = time.perf_counter() - began_s
        if last:
            return
        # Found: what is left to see is that it stays whole, which takes no haste.
        await asyncio.sleep(_POLL_S if fresh.words_s is None else 20 * _POLL_S)


async def _upload(served: Served, word: str, sent: asyncio.Event, fresh: Fresh) -> float:
    """Upload the document of a word; returns when its last byte was sent once it is ready. Raises where it fails."""
    with peer_errors():
        async with streaming(served.stubs.documents.UploadDocument(timeout=_TIMEOUT_S)) as call:
            async for message in _messages(word):
                await call.write(message)
            await call.done_writing()
            sent_s = time.perf_counter()
            sent.set()
            progress = documents_pb2.DocumentProgress()
            async for response in call:
                progress = response.progress
                fresh.chunks = max(fresh.chunks, progress.chunks_total)
    if progress.state != READY:
        raise RuntimeError(f"a new document failed: {progress.error.message}")
    return sent_s


async def _messages(word: str) -> AsyncIterator[documents_pb2.UploadDocumentRequest]:
    head = documents_pb2.DocumentHead(parent=COLLECTION, document_id=word, uri=f"fresh/{word}.txt")
    yield documents_pb2.UploadDocumentRequest(begin=documents_pb2.UploadDocumentRequest.Begin(document=head))
    yield documents_pb2.UploadDocumentRequest(part=documents_pb2.UploadDocumentRequest.Part(data=text(word).encode()))


def text(word: str) -> str:
    """A few chunks' worth of sentences, the word in each, none like another document's."""
    return "\n\n".join(
        f"Boat {word} number {place} leaves the harbour of {word} at minute {place} with {word} aboard."
        for place in range(_SENTENCES)
    )
