"""What goes in: collections and their documents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack

from google.protobuf import field_mask_pb2, struct_pb2

from ragmesh.ingest.v1 import (
    chunking_pb2,
    collections_pb2,
    collections_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
)
from ragmesh_client import uploads
from ragmesh_client.connection import Connection, full_name
from ragmesh_client.resuming import Call, Messages, Place, resumed

_ATTEMPT_TIMEOUT_S = 600.0


class HowToTake(TypedDict, total=False):
    """How a document is taken in, or many are."""

    metadata: Mapping[str, Any]
    """Filters may name the fields that the collection declares."""
    chunking: chunking_pb2.Chunking | None
    """How it is cut; the collection's way without."""
    password: str
    """Opens an encrypted document; it is not kept."""
    timeout_s: float
    """Seconds for each attempt at an upload."""


class Intake(Connection):
    """The calls of ingestion."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._collections = collections_pb2_grpc.CollectionServiceStub(self.channel)
        self._documents = documents_pb2_grpc.DocumentServiceStub(self.channel)
        return self

    # --- Collections ---

    async def create_collection(
        self, collection: str, settings: collections_pb2.Collection | None = None
    ) -> collections_pb2.Collection:
        """Makes a collection."""
        request = collections_pb2.CreateCollectionRequest(
            collection_id=collection.removeprefix("collections/"), collection=settings
        )
        return (await self.call(self._collections.CreateCollection, request)).collection

    async def get_collection(self, collection: str) -> collections_pb2.Collection:
        """Reads a collection."""
        request = collections_pb2.GetCollectionRequest(name=full_name("collections", collection))
        return (await self.call(self._collections.GetCollection, request)).collection

    async def list_collections(self) -> AsyncGenerator[collections_pb2.Collection, None]:
        """All collections of the tenant, by name."""
        request = collections_pb2.ListCollectionsRequest()
        while True:
            page = await self.call(self._collections.ListCollections, request)
            for collection in page.collections:
                yield collection
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def delete_collection(self, collection: str, *, force: bool = False) -> None:
        """Deletes a collection; one with documents only with `force`."""
        request = collections_pb2.DeleteCollectionRequest(name=full_name("collections", collection), force=force)
        await self.call(self._collections.DeleteCollection, request)

    async def update_collection(
        self, collection: collections_pb2.Collection, fields: Sequence[str]
    ) -> collections_pb2.Collection:
        """Changes the named fields of a collection to the values given; with an etag, only if that is current."""
        mask = field_mask_pb2.FieldMask(paths=fields)
        request = collections_pb2.UpdateCollectionRequest(collection=collection, update_mask=mask)
        return (await self.call(self._collections.UpdateCollection, request)).collection

    # --- Documents ---

    async def upload(
        self,
        content: Path | bytes,
        collection: str,
        *,
        document_id: str = "",
        title: str = "",
        uri: str = "",
        **how: Unpack[HowToTake],
    ) -> AsyncGenerator[documents_pb2.DocumentProgress, None]:
        """Uploads a document and yields its progress; the last state is STATE_READY or STATE_FAILED.

        Once STATE_STORED has come, the document survives any crash, also if this call is left. An upload that breaks
        off goes on where it was. Raises OSError where the file cannot be read.
        """
        fields = struct_pb2.Struct()
        fields.update(how.get("metadata", {}))
        head = documents_pb2.DocumentHead(
            parent=full_name("collections", collection),
            document_id=document_id,
            title=title,
            uri=uri or (str(content) if isinstance(content, Path) else ""),
            metadata=fields,
            chunking=how.get("chunking"),
            password=how.get("password", ""),
            size_bytes=await asyncio.to_thread(uploads.size_bytes, content),
        )

        def start(messages: Messages) -> Call:
            return self._documents.UploadDocument(
                messages, timeout=how.get("timeout_s", _ATTEMPT_TIMEOUT_S), metadata=self.metadata
            )

        def messages(place: Place) -> Messages:
            return uploads.messages(head, content, place.upload_id, place.offset)

        async with aclosing(resumed(start, messages)) as steps:
            async for progress in steps:
                yield progress

    async def ingest(
        self,
        paths: Sequence[Path],
        collection: str,
        *,
        concurrency: int = 4,
        **how: Unpack[HowToTake],
    ) -> AsyncGenerator[uploads.FileProgress, None]:
        """Uploads files, and those below folders, so many at once; yields the progress of each as it moves.

        A file's uri is its path below the folder given, so the same folder again replaces its documents.
        """
        files = uploads.document_files(paths)
        folders = [path for path in paths if path.is_dir()]

        def upload(path: Path) -> AsyncGenerator[documents_pb2.DocumentProgress, None]:
            folder = next((folder for folder in folders if path.is_relative_to(folder)), path.parent)
            return self.upload(path, collection, uri=str(path.relative_to(folder)), **how)

        async with aclosing(uploads.upload_all(files, upload, concurrency)) as steps:
            async for step in steps:
                yield step

    async def get_document(self, name: str) -> documents_pb2.Document:
        """Reads a document's record, by its full name."""
        return (await self.call(self._documents.GetDocument, documents_pb2.GetDocumentRequest(name=name))).document

    async def list_documents(self, collection: str) -> AsyncGenerator[documents_pb2.Document, None]:
        """All documents of a collection, by name."""
        request = documents_pb2.ListDocumentsRequest(parent=full_name("collections", collection))
        while True:
            page = await self.call(self._documents.ListDocuments, request)
            for document in page.documents:
                yield document
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def delete_document(self, name: str) -> int:
        """Deletes a document, by its full name; returns the chunks that went with it."""
        request = documents_pb2.DeleteDocumentRequest(name=name)
        return int((await self.call(self._documents.DeleteDocument, request)).deleted_chunks)
