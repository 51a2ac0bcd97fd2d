"""What goes in: collections, their documents, and the jobs that work on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self

from google.protobuf import struct_pb2

from ragmesh.ingest.v1 import (
    collections_pb2,
    collections_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
)
from ragmesh_client import uploads
from ragmesh_client.connection import Connection, drained, full_name
from ragmesh_client.errors import keep_servers_status


class Intake(Connection):
    """The calls of ingestion."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._collections = collections_pb2_grpc.CollectionServiceStub(self.channel)
        self._documents = documents_pb2_grpc.DocumentServiceStub(self.channel)
        self._jobs = jobs_pb2_grpc.JobServiceStub(self.channel)
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

    async def reindex(
        self, collection: str, *, encoder: str = "", language: str = "", timeout_s: float = 86_400.0
    ) -> AsyncGenerator[jobs_pb2.Job, None]:
        """Encodes a collection's documents with another encoder, the server's default without one, while it serves.

        Yields the job at once and as it comes along; the last has ended. It goes on also if this call is left.
        """
        request = jobs_pb2.ReindexCollectionRequest(
            collection=full_name("collections", collection), encoder=encoder, language=language
        )
        job = (await self.call(self._jobs.ReindexCollection, request)).job
        yield job
        watch = jobs_pb2.WatchJobRequest(name=job.name)
        call = self._jobs.WatchJob(watch, timeout=timeout_s, metadata=self.metadata)
        async with aclosing(drained(call)) as responses:
            async for response in responses:
                yield response.job

    async def cancel_job(self, job: str) -> jobs_pb2.Job:
        """Stops a job; a collection that it reindexes stays as it was."""
        request = jobs_pb2.CancelJobRequest(name=full_name("jobs", job))
        return (await self.call(self._jobs.CancelJob, request)).job

    # --- Documents ---

    async def upload(
        self,
        content: Path | bytes,
        collection: str,
        *,
        document_id: str = "",
        title: str = "",
        uri: str = "",
        metadata: dict[str, Any] | None = None,
        timeout_s: float = 600.0,
    ) -> AsyncGenerator[documents_pb2.DocumentProgress, None]:
        """Uploads a document and yields its progress; the last state is STATE_READY or STATE_FAILED.

        Once STATE_STORED has come, the document survives any crash, also if this call is left.
        """
        fields = struct_pb2.Struct()
        fields.update(metadata or {})
        head = documents_pb2.DocumentHead(
            parent=full_name("collections", collection),
            document_id=document_id,
            title=title,
            uri=uri or (str(content) if isinstance(content, Path) else ""),
            metadata=fields,
            size_bytes=await asyncio.to_thread(uploads.size_bytes, content),
        )
        call = self._documents.UploadDocument(
            uploads.messages(head, content), timeout=timeout_s, metadata=self.metadata
        )
        keep_servers_status(call)
        async with aclosing(drained(call)) as responses:
            async for response in responses:
                yield response.progress

    async def ingest(
        self, paths: Sequence[Path], collection: str, *, concurrency: int = 4, timeout_s: float = 600.0
    ) -> AsyncGenerator[uploads.FileProgress, None]:
        """Uploads files, and those below folders, so many at once; yields the progress of each as it moves.

        A file's uri is its path below the folder given, so the same folder again replaces its documents.
        """
        files = uploads.document_files(paths)
        folders = [path for path in paths if path.is_dir()]

        def upload(path: Path) -> AsyncGenerator[documents_pb2.DocumentProgress, None]:
            folder = next((folder for folder in folders if path.is_relative_to(folder)), path.parent)
            return self.upload(path, collection, uri=str(path.relative_to(folder)), timeout_s=timeout_s)

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
