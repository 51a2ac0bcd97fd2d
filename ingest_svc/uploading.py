"""Uploads: a head, then bytes, checked as they come; taken up again where they broke off."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import google_crc32c

from ingest_svc.catalog import DocumentState
from ingest_svc.following import Following
from ingest_svc.intake import Accepted, Admitted, Head, Intake, Origin
from ingest_svc.objects import ObjectStore, Upload
from ingest_svc.progress import Progress
from meshkit.admission import Permits
from meshkit.errors import DataLoss, InvalidArgument, OutOfRange, invalid


@dataclass(frozen=True, slots=True)
class Begin:
    """Begins an upload, or takes up the one of that id at `offset`."""

    head: Head
    upload_id: str = ""
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Bytes:
    """The next bytes and, where they are to be checked, their CRC-32C."""

    data: bytes
    crc32c: int | None = None


Messages = AsyncGenerator[Begin | Bytes]


class Uploading:
    """Receives uploads, many at once; lives as long as its process, nothing to close."""

    def __init__(
        self,
        intake: Intake,
        objects: ObjectStore,
        following: Following,
        permits: Permits,
        progress_bytes: int,
    ) -> None:
        self._intake = intake
        self._objects = objects
        self._following = following
        self._permits = permits
        self._progress_bytes = progress_bytes

    async def upload(self, tenant: str, subject: str, messages: Messages) -> AsyncGenerator[Progress]:
        """How the upload goes, from its first byte to its document's end; close it where it may be left early.

        Raises OUT_OF_ORDER, TOO_LARGE, OFFSET_MISMATCH, CHECKSUM_MISMATCH, OVERLOADED and what Intake raises.
        """
        begin = await anext(messages, None)
        if not isinstance(begin, Begin):
            raise out_of_order("begin")
        admitted = await self._intake.admit(tenant, begin.head, "begin.document")
        async with self._permits.take(), self._objects.open_upload(tenant, begin.upload_id) as upload:
            _check_offset(upload, begin.offset)
            async with aclosing(self._receive(upload, messages)) as received:
                async for progress in received:
                    yield progress
            check_length(upload, begin.head.size_bytes)
            accepted = await self._intake.accept(Origin(tenant, subject), admitted, upload)
        async with aclosing(self._following.follow(tenant, accepted)) as followed:
            async for progress in followed:
                yield progress

    async def take(self, tenant: str, subject: str, admitted: Admitted, data: bytes) -> Accepted:
        """Take a document whose bytes came at once."""
        self._intake.check_size(len(data))
        async with self._permits.take(), self._objects.open_upload(tenant) as upload:
            await upload.append(data)
            return await self._intake.accept(Origin(tenant, subject), admitted, upload)

    async def _receive(self, upload: Upload, messages: Messages) -> AsyncGenerator[Progress]:
        yield _receiving(upload)
        told = upload.size
        async for message in messages:
            if not isinstance(message, Bytes):
                raise out_of_order("part")
            check_sum(message)
            self._intake.check_size(upload.size + len(message.data))
            await upload.append(message.data)
            if upload.size - told >= self._progress_bytes:
                told = upload.size
                yield _receiving(upload)
        # To a server, a caller who left looks like one who has sent all: only who can still be written to has not left.
        yield _receiving(upload)


def _receiving(upload: Upload) -> Progress:
    return Progress(
        document="",
        generation="",
        state=DocumentState.RECEIVING,
        upload_id=upload.id,
        bytes_received=upload.size,
    )


def _check_offset(upload: Upload, offset: int) -> None:
    if offset != upload.size:
        metadata = {"expected": str(upload.size)}
        message = f"the upload goes on at byte {upload.size}, not {offset}"
        raise OutOfRange("OFFSET_MISMATCH", message, metadata=metadata)


def check_length(upload: Upload, announced: int) -> None:
    if announced not in (0, upload.size):
        raise invalid("begin.document.size_bytes", f"{announced} bytes were announced, {upload.size} came")


def check_sum(message: Bytes) -> None:
    if message.crc32c is not None and google_crc32c.value(message.data) != message.crc32c:
        metadata = {"expected_crc32c": f"{message.crc32c:08x}"}
        raise DataLoss("CHECKSUM_MISMATCH", "the bytes are not those that were sent", metadata=metadata)


def out_of_order(expected: str) -> InvalidArgument:
    return InvalidArgument("OUT_OF_ORDER", f"a message with {expected} was expected", metadata={"expected": expected})
