"""What becomes of a stored document: parsed, cut, encoded, indexed."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ingest_svc.catalog import Collection, Document, DocumentState, Timing
from ingest_svc.chunking import Choice, Chunk, Encoded, Strategies
from ingest_svc.encoder import Encoder, batches, encode
from ingest_svc.extract import Extract
from ingest_svc.index import Index, Part
from ingest_svc.metadata import declared
from ingest_svc.objects import ObjectStore, text_key
from meshkit.errors import FailedPrecondition, InvalidArgument

# Told the document as it is now and how many of its chunks are encoded; raises where the work is unwanted.
Report = Callable[[Document, int], Awaitable[None]]

_STAGES = {
    DocumentState.PARSING: "parse",
    DocumentState.CHUNKING: "chunk",
    DocumentState.EMBEDDING: "embed",
    DocumentState.INDEXING: "index",
}
_MAX_TITLE_CHARS = 512
_MAX_CONTEXT_CHARS = 256


class Parser(Protocol):
    """Reads files apart from this process, within limits of time and memory."""

    async def parse(self, file: Path, uri: str, password: str = "") -> Extract:
        """The text of a file; raises MeshError with the reason of a document that cannot be read."""


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """Bounds of a batch to the encoder, and of a text to its tokenizer."""

    max_batch_tokens: int
    max_batch_chunks: int
    max_tokenize_bytes: int


class Pipeline:
    """Takes stored documents to the index, many at once; lives as long as its process, nothing to close."""

    def __init__(
        self,
        parser: Parser,
        objects: ObjectStore,
        encoder: Encoder,
        index: Index,
        strategies: Strategies,
        limits: PipelineLimits,
    ) -> None:
        self._parser = parser
        self._objects = objects
        self._encoder = encoder
        self._index = index
        self._strategies = strategies
        self._limits = limits

    async def run(self, collection: Collection, document: Document, report: Report) -> Document:
        """The document, its chunks findable.

        Raises MeshError where it cannot be taken in, or not now; KeyError where its object is gone.
        """
        course = _Course(document, report)
        await course.reach(DocumentState.PARSING)
        extract = await self._extract(document)
        await course.reach(DocumentState.CHUNKING, **_described(document, extract))
        choice = await asyncio.to_thread(self._strategies.choose, document.chunking, extract)
        chunks = await self._cut(collection, choice, extract)
        await course.reach(DocumentState.EMBEDDING, choice=choice, **_measured(extract, chunks, collection))
        metadata = {**declared(extract.metadata, collection.filterable_fields), **document.metadata}
        async with aclosing(self._parts(collection, chunks, course)) as parts:
            await self._index.write(course.document, collection.encoder.name, metadata, parts)
        return course.ready()

    async def run_beside(self, beside: Collection, document: Document) -> Document:
        """The document as it is in an index being built beside its collection's, untold; raises as `run` does."""
        return await self.run(beside, document.within(beside), _untold)

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

    async def _cut(self, collection: Collection, choice: Choice, extract: Extract) -> list[Chunk]:
        ends: list[int] = []
        for start, text in pieces(extract, self._limits.max_tokenize_bytes):
            found = await self._encoder.token_ends(collection.encoder.model, text)
            ends.extend(start + end for end in found)
        probes = await asyncio.to_thread(self._strategies.probes, choice.chunking, extract)
        vectors = await encode(self._encoder, collection.encoder.model, probes, self._limits.max_batch_chunks)
        chunks = await asyncio.to_thread(self._strategies.cut, choice.chunking, extract, Encoded(ends, vectors))
        if not chunks:
            metadata = {"media_type": extract.media_type}
            raise InvalidArgument("NO_TEXT", "the document has no text", metadata=metadata)
        return chunks

    async def _parts(self, collection: Collection, chunks: Sequence[Chunk], course: "_Course") -> AsyncGenerator[Part]:
        """The chunks with their vectors; when the last is taken, the document is being indexed."""
        runs = batches(chunks, self._limits.max_batch_tokens, self._limits.max_batch_chunks)
        texts = [[with_context(chunk, course.document.title) for chunk in run] for run in runs]
        encoder = collection.encoder
        async with aclosing(self._encoder.embed(encoder.model, texts)) as batches_of_vectors:
            for run in runs:
                vectors = await anext(batches_of_vectors)
                if (vectors.encoder, vectors.dimension) != (encoder.name, encoder.dimension):
                    raise _other_encoder(encoder.name, vectors.encoder)
                yield Part(run, vectors)
                await course.encoded(len(run))
        await course.reach(DocumentState.INDEXING)


class _Course:
    """A document on its way; each stage is timed from its `reach` to the next. Lives for one run."""

    def __init__(self, document: Document, report: Report) -> None:
        self.document = document
        self._report = report
        self._began_s = self._reached_s = time.monotonic()
        self._timings: list[Timing] = []
        self._encoded = 0

    async def reach(self, state: DocumentState, **values: Any) -> None:
        self._end_stage()
        self.document = self.document.changed(state=state, **values)
        await self._report(self.document, self._encoded)

    async def encoded(self, chunks: int) -> None:
        self._encoded += chunks
        await self._report(self.document, self._encoded)

    def ready(self) -> Document:
        self._end_stage()
        return self.document.changed(state=DocumentState.READY, timings=tuple(self._timings))

    def _end_stage(self) -> None:
        now_s, stage = time.monotonic(), _STAGES.get(self.document.state)
        if stage is not None:
            start_s = self._reached_s - self._began_s
            self._timings.append(Timing(stage=stage, start_s=start_s, duration_s=now_s - self._reached_s))
        self._reached_s = now_s


async def _untold(_document: Document, _encoded: int) -> None: ...


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
