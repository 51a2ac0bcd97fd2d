"""Documents on their way in: the messages of an upload, and many files at once."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import grpc

from ragmesh.ingest.v1 import documents_pb2
from ragmesh_client.errors import InvalidRequestError, RagmeshError, from_status

PART_BYTES = 256 * 1024
_ENDED = {documents_pb2.Document.STATE_READY, documents_pb2.Document.STATE_FAILED}


@dataclass(frozen=True)
class FileProgress:
    """How far a file has come."""

    path: Path
    progress: documents_pb2.DocumentProgress | None
    """The state as the mesh tells it; None where the upload itself failed."""
    error: RagmeshError | None = None
    """Why the upload, or the document, failed."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of this file."""
        return self.error is not None or (self.progress is not None and self.progress.state in _ENDED)


def document_files(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those below the folders named, sorted; hidden ones are left out."""
    found: list[Path] = []
    for path in paths:
        below = path.rglob("*") if path.is_dir() else [path]
        root = path if path.is_dir() else path.parent
        found += [f for f in below if f.is_file() and not _hidden(f.relative_to(root))]
    return sorted(set(found))


def size_bytes(content: Path | bytes) -> int:
    """The length of a document's bytes."""
    return content.stat().st_size if isinstance(content, Path) else len(content)


async def messages(
    head: documents_pb2.DocumentHead, content: Path | bytes, upload_id: str = "", offset: int = 0
) -> AsyncGenerator[documents_pb2.UploadDocumentRequest, None]:
    """The messages of an upload from a byte on: the head, then the bytes in parts, each with its CRC-32C.

    A file is read as the stream takes it.
    """
    begin = documents_pb2.UploadDocumentRequest.Begin(document=head, upload_id=upload_id, offset=offset)
    yield documents_pb2.UploadDocumentRequest(begin=begin)
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        file.seek(offset)
        while data := await asyncio.to_thread(file.read, PART_BYTES):
            yield _part(data)


async def upload_all(
    files: Sequence[Path],
    upload: Callable[[Path], AsyncGenerator[documents_pb2.DocumentProgress, None]],
    concurrency: int,
) -> AsyncGenerator[FileProgress, None]:
    """Uploads files, so many at once, and yields the progress of each; a failing file stops no other."""
    progress: asyncio.Queue[FileProgress | None] = asyncio.Queue(maxsize=concurrency * 4)
    waiting = iter(files)

    async def work() -> None:
        for path in waiting:
            async for step in _upload_one(path, upload):
                await progress.put(step)

    async def work_all() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, len(files))):
                    group.create_task(work())
        finally:
            await progress.put(None)

    task = asyncio.create_task(work_all())
    try:
        while (step := await progress.get()) is not None:
            yield step
        await task
    finally:
        task.cancel()
        # A reader that leaves early leaves workers that wait to put: make room until they are gone.
        while not task.done():
            while not progress.empty():
                progress.get_nowait()
            await asyncio.wait([task], timeout=0.05)


async def _upload_one(
    path: Path, upload: Callable[[Path], AsyncGenerator[documents_pb2.DocumentProgress, None]]
) -> AsyncGenerator[FileProgress, None]:
    try:
        async with aclosing(upload(path)) as steps:
            async for step in steps:
                failed = step.state == documents_pb2.Document.STATE_FAILED
                yield FileProgress(path, step, from_status(step.error) if failed else None)
    except RagmeshError as error:
        yield FileProgress(path, None, error)
    except OSError as error:
        yield FileProgress(path, None, InvalidRequestError(grpc.StatusCode.INVALID_ARGUMENT, "", str(error)))


def _part(data: bytes) -> documents_pb2.UploadDocumentRequest:
    part = documents_pb2.UploadDocumentRequest.Part(data=data, crc32c=google_crc32c.value(data))
    return documents_pb2.UploadDocumentRequest(part=part)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
