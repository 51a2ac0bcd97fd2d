"""What becomes of a stored document: parsed, cut, encoded, indexed."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ingest_svc import kept_chunks
from ingest_svc.catalog import Collection, Document, DocumentState, EncoderCard
from ingest_svc.chunking import Choice, Chunk, Encoded, Strategies
from ingest_svc.course import Course, untold
from ingest_svc.encoder import Encoder, Vectors, batches
from ingest_svc.extract import Extract
from ingest_svc.gathering import Gathering
from ingest_svc.index import IndexWriter, Part
from ingest_svc.kept_chunks import Cut
from ingest_svc.metadata import declared
from ingest_svc.objects import ObjectStore, chunks_key, text_key
from ingest_svc.work import Lane
from meshkit.errors import FailedPrecondition, InvalidArgument

_MAX_TITLE_CHARS = 512
_MAX_CONTEXT_CHARS = 256
# A document's chunks are encoded while those before them are written.
_RUNS_AHEAD = 2
# What texts have for each of their tokens, where nobody counted.
_BYTES_PER_TOKEN = 4


class Parser(Protocol):
    """Reads files apart from this process, within limits of time and memory."""

    async def parse(self, file: Path, uri: str, password: str = "") -> Extract:
        """The text of a file; raises MeshError with the reason of a document that cannot be read."""


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """Bounds of a batch to the encoder, of a text to its tokenizer, and of the chunks kept of a document."""

    max_batch_tokens: int
    max_batch_chunks: int
    max_tokenize_bytes: int
    max_kept_bytes: int


class Pipeline:
    """Takes stored documents to the index, many at once; lives as long as its process, nothing to close.

    First `read`, then `write`, at once or later: between them `keep` keeps what was read, and `write_words` lets it be
    found by its words. All may be done again.
    """

    def __init__(
        self,
        parser: Parser,
        objects: ObjectStore,
        encoder: Encoder,
        gathering: Gathering,
        index: IndexWriter,
        strategies: Strategies,
        limits: PipelineLimits,
    ) -> None:
        self._parser = parser
        self._objects = objects
        self._encoder = encoder
        self._gathering = gathering
        self._index = index
        self._strategies = strategies
        self._limits = limits

    @property
    def idle(self) -> bool:
        """Whether nothing waits for vectors here."""
        return self._gathering.idle

    async def read(self, collection: Collection, course: Course, lane: Lane) -> Cut:
        """The document's chunks.

        Raises MeshError where it cannot be taken in, or not now; KeyError where its object is gone.
        """
        await course.reach(DocumentState.PARSING)
        extract = await self._extract(course.document)
        await course.reach(DocumentState.CHUNKING, **_described(course.document, extract))
        choice = await asyncio.to_thread(self._strategies.choose, course.document.chunking, extract)
        chunks = await self._cut(collection, choice, extract, lane)
        metadata = {**declared(extract.metadata, collection.filterable_fields), **course.document.metadata}
        course.document = course.document.changed(choice=choice, **_measured(extract, chunks, collection))
        return Cut(chunks, collection.encoder.name, metadata)

    async def keep(self, document: Document, cut: Cut) -> int:
        """Keep the chunks beside the document's bytes and say how many bytes they are; too many are not kept."""
        data = await asyncio.to_thread(kept_chunks.dump, cut)
        if len(data) <= self._limits.max_kept_bytes:
            await self._objects.put(chunks_key(document.object), data)
        return len(data)

    async def kept(self, collection: Collection, document: Document) -> Cut | None:
        """The chunks that were kept; None where they were not, or were cut for another encoder."""
        data = await self._objects.get(chunks_key(document.object))
        if data is None:
            return None
        cut = await asyncio.to_thread(kept_chunks.load, data)
        return cut if cut.encoder == collection.encoder.name else None

    async def forget(self, document: Document) -> None:
        """Remove the chunks kept, if there are any."""
        await self._objects.remove(chunks_key(document.object))

    async def remove_content(self, document: Document) -> None:
        """Remove the document's bytes, and what is kept beside them."""
        for key in (document.object, text_key(document.object), chunks_key(document.object)):
            await self._objects.remove(key)

    async def write_words(self, collection: Collection, document: Document, cut: Cut) -> None:
        """Let the document be found by its words, and no more by what it was before. Raises MeshError."""
        async with aclosing(_without_vectors(cut, self._limits.max_batch_chunks)) as parts:
            await self._index.write(document, collection.encoder.name, cut.metadata, parts)

    async def write(self, collection: Collection, course: Course, cut: Cut, lane: Lane) -> Document:
        """The document, its chunks findable by words and vectors, in place of all that it was before.

        Raises MeshError where it cannot be encoded or written, or not now.
        """
        await course.reach(DocumentState.EMBEDDING)
        async with aclosing(self._parts(collection.encoder, cut.chunks, course, lane)) as parts:
            await self._index.write(course.document, collection.encoder.name, cut.metadata, parts)
        return course.ready(collection.encoder.name)

    async def run_beside(self, beside: Collection, document: Document) -> Document:
        """The document as it is in an index being built beside its collection's, untold; raises as the steps do."""
        course = Course(document.within(beside), untold)
        cut = await self.read(beside, course, Lane.BULK)
        return await self.write(beside, course, cut, Lane.BULK)

    async def read_locked(self, key: str, uri: str, password: str) -> None:
        """Keep the text of an encrypted object beside it, since its password is not kept.

        Raises MeshError where the object cannot be read.
        """
        async with self._objects.open_file(key) as file:
            extract = await self._parser.parse(file, uri, password)
        await self._objects.put(text_key(key), extract.model_dump_json().encode())

    async def _extract(self, document: Document) -> Extract:
        read_before = await self._objects.get(text_key(document.object))
        if read_before is not None:
            return Extract.model_validate_json(read_before)
        async with self._objects.open_file(document.object) as file:
            return await self._parser.parse(file, document.uri)

    async def _cut(self, collection: Collection, choice: Choice, extract: Extract, lane: Lane) -> list[Chunk]:
        ends: list[int] = []
        for start, text in pieces(extract, self._limits.max_tokenize_bytes):
            found = await self._encoder.token_ends(collection.encoder.model, text)
            ends.extend(start + end for end in found)
        probes = await asyncio.to_thread(self._strategies.probes, choice.chunking, extract)
        vectors = await self._encoded(collection.encoder.model, probes, lane)
        chunks = await asyncio.to_thread(self._strategies.cut, choice.chunking, extract, Encoded(ends, vectors))
        if not chunks:
            metadata = {"media_type": extract.media_type}
            raise InvalidArgument("NO_TEXT", "the document has no text", metadata=metadata)
        return chunks

    async def _encoded(self, model: str, texts: Sequence[str], lane: Lane) -> NDArray[np.float32]:
        """The vectors of texts whose tokens nobody counted, a row each."""
        if not texts:
            return np.empty((0, 0), np.float32)
        tokens = [len(text.encode()) // _BYTES_PER_TOKEN + 1 for text in texts]
        found = await self._gathering.encode(model, texts, tokens, lane)
        return np.frombuffer(found.data, "<f4").reshape(found.count, found.dimension)

    async def _parts(
        self, encoder: EncoderCard, chunks: Sequence[Chunk], course: Course, lane: Lane
    ) -> AsyncGenerator[Part]:
        """The chunks with their vectors; when the last is taken, the document is being indexed."""
        title = course.document.title
        asked: deque[tuple[list[Chunk], asyncio.Task[Vectors]]] = deque()
        waiting = iter(batches(chunks, self._limits.max_batch_tokens, self._limits.max_batch_chunks))
        try:
            while True:
                while len(asked) < _RUNS_AHEAD and (run := next(waiting, None)):
                    asked.append((run, asyncio.create_task(self._vectors(encoder, run, title, lane))))
                if not asked:
                    break
                yield Part(asked[0][0], await asked[0][1])
                run, _ = asked.popleft()
                await course.encoded(len(run), last=not asked)
        finally:
            for _, task in asked:
                task.cancel()
            await asyncio.gather(*(task for _, task in asked), return_exceptions=True)
        await course.reach(DocumentState.INDEXING)

    async def _vectors(self, encoder: EncoderCard, run: Sequence[Chunk], title: str, lane: Lane) -> Vectors:
        texts = [with_context(chunk, title) for chunk in run]
        vectors = await self._gathering.encode(encoder.model, texts, [chunk.token_count for chunk in run], lane)
        if (vectors.encoder, vectors.dimension) != (encoder.name, encoder.dimension):
            raise _other_encoder(encoder.name, vectors.encoder)
        return vectors


async def _without_vectors(cut: Cut, max_chunks: int) -> AsyncGenerator[Part]:
    for start in range(0, len(cut.chunks), max_chunks):
        yield Part(cut.chunks[start : start + max_chunks], None)


def pieces(extract: Extract, max_bytes: int) -> list[tuple[int, str]]:
    """The text in pieces of at most so many bytes, each with its first byte; parted between blocks or at spaces."""
    text = extract.text.encode()
    starts = [block.start for block in extract.blocks]
    found: list[tuple[int, str]] = []
    start = 0
    while start < len(text):
        limit = start + max_bytes
        cut = len(text)
        if limit < cut:
            between = max((place for place in starts if start < place <= limit), default=0)
            cut = between or _space(text, start, limit)
        found.append((start, text[start:cut].decode()))
        start = cut
    return found


def _space(text: bytes, start: int, limit: int) -> int:
    """The last place up to `limit` that parts words or, where there is none, characters."""
    space = text.rfind(b" ", start + 1, limit)
    if space > 0:
        return space
    while text[limit] & 0xC0 == 0x80:  # noqa: PLR2004 - UTF-8's inner bytes, as RFC 3629 has it
        limit -= 1
    return limit


def with_context(chunk: Chunk, title: str) -> str:
    """What is encoded of a chunk: its text under its title and headings, without which it may not say its subject."""
    above = dict.fromkeys(words for words in (title, *chunk.heading_path) if words)
    context = " > ".join(words for words in above if not chunk.text.startswith(words))
    return f"{context[:_MAX_CONTEXT_CHARS]}\n{chunk.text}" if context else chunk.text


def _described(document: Document, extract: Extract) -> dict[str, Any]:
    return {
        "title": (document.given_title or extract.title)[:_MAX_TITLE_CHARS],
        "media_type": extract.media_type,
        "page_count": extract.page_count,
        "parser": extract.parser,
    }


def _measured(extract: Extract, chunks: Sequence[Chunk], collection: Collection) -> dict[str, Any]:
    warnings = list(extract.warnings)
    limit = collection.encoder.max_tokens
    longer = sum(chunk.token_count > limit for chunk in chunks)
    if longer:
        warnings.append(f"chunks longer than the {limit} tokens that the encoder reads: {longer}")
    tokens = sum(chunk.token_count for chunk in chunks)
    return {"chunk_count": len(chunks), "token_count": tokens, "warnings": tuple(warnings)}


def _other_encoder(expected: str, given: str) -> FailedPrecondition:
    message = "the encoder that answers now is not the collection's"
    return FailedPrecondition("ENCODER_MISMATCH", message, metadata={"expected": expected, "given": given})
