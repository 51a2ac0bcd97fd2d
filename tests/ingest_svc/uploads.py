"""Uploads as a caller makes them, and the states that are told."""

from collections.abc import AsyncIterator
from typing import Any

from ragmesh.ingest.v1 import documents_pb2
from tests.ingest_svc.conftest import HANDBOOK, Client

PAGE = """---
title: Pod Lifecycle
weight: 30
audience: [dev, ops]
---
# Pods

A Pod has a phase. {{< note >}}Phases are few.{{< /note >}}

## Probes

""" + " ".join(f"Probe {n} asks the container whether it is alive." for n in range(60))

READY = documents_pb2.Document.STATE_READY
FAILED = documents_pb2.Document.STATE_FAILED
RECEIVING = documents_pb2.Document.STATE_RECEIVING
STORED = documents_pb2.Document.STATE_STORED


def begin(upload_id: str = "", offset: int = 0, **head: Any) -> documents_pb2.UploadDocumentRequest:
    """The first message of an upload."""
    document = documents_pb2.DocumentHead(**{"parent": HANDBOOK} | head)
    return documents_pb2.UploadDocumentRequest(
        begin=documents_pb2.UploadDocumentRequest.Begin(document=document, upload_id=upload_id, offset=offset)
    )


def part(data: bytes, crc32c: int | None = None) -> documents_pb2.UploadDocumentRequest:
    """Some bytes of an upload."""
    content = documents_pb2.UploadDocumentRequest.Part(data=data, crc32c=crc32c)
    return documents_pb2.UploadDocumentRequest(part=content)


async def upload(client: Client, *messages: documents_pb2.UploadDocumentRequest) -> list[Any]:
    """Send the messages and return the progress."""

    async def sent() -> AsyncIterator[documents_pb2.UploadDocumentRequest]:
        for message in messages:
            yield message

    call: Any = client.documents.UploadDocument(sent())
    return [response.progress async for response in call]
