"""An upload that goes on where it broke off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import grpc

from ragmesh.ingest.v1 import documents_pb2
from ragmesh_client.connection import drained
from ragmesh_client.errors import OverloadedError, RagmeshError, UnavailableError, keep_servers_status


@dataclass(frozen=True)
class Patience:
    """Attempts without a byte of progress, and the seconds between them: doubling, up to the most."""

    max_attempts: int = 8
    backoff_s: float = 0.2
    max_backoff_s: float = 5.0

    def wait_s(self, attempts: int) -> float:
        """Seconds to wait after so many."""
        return min(self.backoff_s * 2.0**attempts, self.max_backoff_s)


@dataclass(frozen=True)
class Place:
    """Where an upload stands: its id at the mesh, and how many bytes that has."""

    upload_id: str = ""
    offset: int = 0


Messages = AsyncIterator[documents_pb2.UploadDocumentRequest]
Call = grpc.aio.StreamStreamCall[documents_pb2.UploadDocumentRequest, documents_pb2.UploadDocumentResponse]


async def resumed(
    start: Callable[[Messages], Call], messages: Callable[[Place], Messages], patience: Patience = Patience()
) -> AsyncGenerator[documents_pb2.DocumentProgress, None]:
    """The progress of an upload, begun again after a break at the byte that the mesh has.

    `messages` gives what is to be sent from a place on; an OSError of it is raised. A mesh that does not answer at all
    is not tried again.
    """
    place, attempts = Place(), 0
    unreadable: list[OSError] = []
    while True:
        call = start(_read(messages(place), unreadable))
        keep_servers_status(call)
        try:
            async with aclosing(drained(call)) as responses:
                async for response in responses:
                    moved = _moved(place, response.progress)
                    attempts = attempts if moved == place else 0
                    place = moved
                    yield response.progress
            return
        except asyncio.CancelledError:
            # So grpc.aio ends a call whose messages cannot be made.
            if unreadable:
                raise unreadable[0] from None
            raise
        except RagmeshError as error:
            attempts += 1
            if attempts == patience.max_attempts or not _worth_another(place, error):
                raise
            wait_s = error.retry_after_s or patience.wait_s(attempts)
            place = _after(place, error)
        await asyncio.sleep(wait_s)


async def _read(messages: Messages, unreadable: list[OSError]) -> Messages:
    """The messages; keeps the error that ends them."""
    try:
        async for message in messages:
            yield message
    except OSError as error:
        unreadable.append(error)
        raise


def _moved(place: Place, progress: documents_pb2.DocumentProgress) -> Place:
    """The place after a message; once the bytes are stored, sending them anew finds the document on its way."""
    if progress.state != documents_pb2.Document.STATE_RECEIVING:
        return Place()
    return Place(progress.upload_id or place.upload_id, progress.bytes_received)


def _worth_another(place: Place, error: RagmeshError) -> bool:
    if isinstance(error, OverloadedError):
        return error.retry_after_s is not None
    begun = bool(place.upload_id)
    return begun and (isinstance(error, UnavailableError) or error.reason == "OFFSET_MISMATCH")


def _after(place: Place, error: RagmeshError) -> Place:
    """The place that the mesh names, where it has more or fewer bytes than it had told."""
    expected: Any = error.metadata.get("expected")
    if error.reason != "OFFSET_MISMATCH" or expected is None:
        return place
    return replace(place, offset=int(expected))
