"""An async client over the generated stubs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf import struct_pb2

from ragmesh.common.v1 import server_pb2
from ragmesh.gateway.v1 import (
    answers_pb2,
    answers_pb2_grpc,
    events_pb2,
    feedback_pb2,
    feedback_pb2_grpc,
    mesh_pb2,
    mesh_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
)
from ragmesh.generator.v1 import generator_pb2
from ragmesh.ingest.v1 import (
    collections_pb2,
    collections_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
)
from ragmesh.retriever.v1 import retriever_pb2, retriever_pb2_grpc
from ragmesh_client import uploads
from ragmesh_client.errors import cut_off, keep_servers_status, translated
from ragmesh_client.events import Event, Failed, Final, from_proto
from ragmesh_client.settings import find_access

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

# Reading is repeated once or twice where the mesh is not there; gRPC does so only before the first byte.
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    {"service": "ragmesh.retriever.v1.RetrieverService"},
                    {"service": "ragmesh.gateway.v1.MeshService"},
                    {"service": "ragmesh.ingest.v1.CollectionService", "method": "GetCollection"},
                    {"service": "ragmesh.ingest.v1.CollectionService", "method": "ListCollections"},
                    {"service": "ragmesh.ingest.v1.DocumentService", "method": "GetDocument"},
                    {"service": "ragmesh.ingest.v1.DocumentService", "method": "ListDocuments"},
                ],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)


class Client:
    """Calls a mesh on behalf of one token. Lives as an async context manager, which closes the connection.

    Collections, documents and sessions are given by name (`collections/handbook`) or by its last part
    (`handbook`). Every method raises `RagmeshError`.
    """

    def __init__(
        self,
        target: str | None = None,
        token: str | None = None,
        *,
        tls: bool = False,
        timeout_s: float = 60.0,
    ) -> None:
        """Without `target` or `token` it asks RAGMESH_TARGET and RAGMESH_TOKEN, then the local mesh.

        `timeout_s` bounds each call; uploads and answers take their own.
        """
        access = find_access(target, token)
        self.target = access.target
        self._metadata = (("authorization", f"Bearer {access.token}"),) if access.token else ()
        self._tls = tls
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        options: list[tuple[str, Any]] = [
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ]
        if self._tls:
            self._channel = grpc.aio.secure_channel(self.target, grpc.ssl_channel_credentials(), options)
        else:
            self._channel = grpc.aio.insecure_channel(self.target, options)
        self._answers = answers_pb2_grpc.AnswerServiceStub(self._channel)
        self._sessions = sessions_pb2_grpc.SessionServiceStub(self._channel)
        self._feedback = feedback_pb2_grpc.FeedbackServiceStub(self._channel)
        self._mesh = mesh_pb2_grpc.MeshServiceStub(self._channel)
        self._retriever = retriever_pb2_grpc.RetrieverServiceStub(self._channel)
        self._collections = collections_pb2_grpc.CollectionServiceStub(self._channel)
        self._documents = documents_pb2_grpc.DocumentServiceStub(self._channel)
        self._jobs = jobs_pb2_grpc.JobServiceStub(self._channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close(None)

    # --- Answers ---

    async def ask(
        self,
        question: str,
        collection: str,
        *,
        session: str | None = None,
        model: str = "",
        retrieval: answers_pb2.RetrievalOptions | None = None,
        generation: answers_pb2.GenerationOptions | None = None,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Streams the events of an answer, tokens as they are made; the last is `Final`.

        Leaving the loop early stops the work in the mesh. A failure in mid-answer is yielded as `Failed`,
        then raised; a stream that is cut off raises `UnavailableError`.
        """
        request = answers_pb2.AskRequest(
            question=question,
            collection=_name("collections", collection),
            session=_name("sessions", session) if session else "",
            model=model,
            retrieval=retrieval,
            generation=generation,
        )
        call = self._answers.Ask(request, timeout=timeout_s or self._timeout_s, metadata=self._metadata)
        async with aclosing(_drained(call)) as responses:
            async for response in responses:
                event = from_proto(response.event)
                if event is None:
                    continue
                yield event
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, Final):
                    return
        raise cut_off()

    async def ask_once(
        self, question: str, collection: str, *, session: str | None = None, model: str = ""
    ) -> events_pb2.Answer:
        """Answers a question in one message."""
        ask = answers_pb2.AskRequest(
            question=question,
            collection=_name("collections", collection),
            session=_name("sessions", session) if session else "",
            model=model,
        )
        return (await self._call(self._answers.AskOnce, answers_pb2.AskOnceRequest(ask=ask))).answer

    async def get_answer(self, name: str) -> events_pb2.Answer:
        """Reads an answer again."""
        request = answers_pb2.GetAnswerRequest(name=_name("answers", name))
        return (await self._call(self._answers.GetAnswer, request)).answer

    async def give_feedback(self, answer: str, *, up: bool, comment: str = "") -> feedback_pb2.Feedback:
        """Records a thumb, and words where there are any, on an answer."""
        rating = feedback_pb2.Feedback.RATING_UP if up else feedback_pb2.Feedback.RATING_DOWN
        request = feedback_pb2.CreateFeedbackRequest(
            parent=_name("answers", answer), feedback=feedback_pb2.Feedback(rating=rating, comment=comment)
        )
        return (await self._call(self._feedback.CreateFeedback, request)).feedback

    # --- Search ---

    async def search(
        self,
        query: str,
        collection: str,
        *,
        mode: retriever_pb2.SearchMode.ValueType = retriever_pb2.SEARCH_MODE_HYBRID,
        top_k: int = 10,
        filter: str = "",  # the contract's word
        explain: bool = False,
    ) -> retriever_pb2.SearchResponse:
        """The chunks that best answer a query, best first."""
        request = retriever_pb2.SearchRequest(
            collection=_name("collections", collection),
            query=query,
            mode=mode,
            top_k=top_k,
            filter=filter,
            explain=explain,
        )
        return await self._call(self._retriever.Search, request)

    # --- Collections ---

    async def create_collection(
        self, collection: str, settings: collections_pb2.Collection | None = None
    ) -> collections_pb2.Collection:
        """Makes a collection."""
        request = collections_pb2.CreateCollectionRequest(
            collection_id=collection.removeprefix("collections/"), collection=settings
        )
        return (await self._call(self._collections.CreateCollection, request)).collection

    async def get_collection(self, collection: str) -> collections_pb2.Collection:
        """Reads a collection."""
        request = collections_pb2.GetCollectionRequest(name=_name("collections", collection))
        return (await self._call(self._collections.GetCollection, request)).collection

    async def list_collections(self) -> AsyncGenerator[collections_pb2.Collection, None]:
        """All collections of the tenant, by name."""
        request = collections_pb2.ListCollectionsRequest()
        while True:
            page = await self._call(self._collections.ListCollections, request)
            for collection in page.collections:
                yield collection
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def delete_collection(self, collection: str, *, force: bool = False) -> None:
        """Deletes a collection; one with documents only with `force`."""
        request = collections_pb2.DeleteCollectionRequest(name=_name("collections", collection), force=force)
        await self._call(self._collections.DeleteCollection, request)

    async def reindex(
        self, collection: str, *, encoder: str = "", language: str = "", timeout_s: float = 86_400.0
    ) -> AsyncGenerator[jobs_pb2.Job, None]:
        """Encodes a collection's documents with another encoder, the server's default without one, while it serves.

        Yields the job at once and as it comes along; the last has ended. It goes on also if this call is left.
        """
        request = jobs_pb2.ReindexCollectionRequest(
            collection=_name("collections", collection), encoder=encoder, language=language
        )
        job = (await self._call(self._jobs.ReindexCollection, request)).job
        yield job
        watch = jobs_pb2.WatchJobRequest(name=job.name)
        call = self._jobs.WatchJob(watch, timeout=timeout_s, metadata=self._metadata)
        async with aclosing(_drained(call)) as responses:
            async for response in responses:
                yield response.job

    async def cancel_job(self, job: str) -> jobs_pb2.Job:
        """Stops a job; a collection that it reindexes stays as it was."""
        request = jobs_pb2.CancelJobRequest(name=_name("jobs", job))
        return (await self._call(self._jobs.CancelJob, request)).job

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
            parent=_name("collections", collection),
            document_id=document_id,
            title=title,
            uri=uri or (str(content) if isinstance(content, Path) else ""),
            metadata=fields,
            size_bytes=await asyncio.to_thread(uploads.size_bytes, content),
        )
        call = self._documents.UploadDocument(
            uploads.messages(head, content), timeout=timeout_s, metadata=self._metadata
        )
        keep_servers_status(call)
        async with aclosing(_drained(call)) as responses:
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
        return (await self._call(self._documents.GetDocument, documents_pb2.GetDocumentRequest(name=name))).document

    async def list_documents(self, collection: str) -> AsyncGenerator[documents_pb2.Document, None]:
        """All documents of a collection, by name."""
        request = documents_pb2.ListDocumentsRequest(parent=_name("collections", collection))
        while True:
            page = await self._call(self._documents.ListDocuments, request)
            for document in page.documents:
                yield document
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def delete_document(self, name: str) -> int:
        """Deletes a document, by its full name; returns the chunks that went with it."""
        request = documents_pb2.DeleteDocumentRequest(name=name)
        return int((await self._call(self._documents.DeleteDocument, request)).deleted_chunks)

    # --- Sessions ---

    async def get_session(self, session: str) -> sessions_pb2.Session:
        """Reads a conversation with its turns."""
        request = sessions_pb2.GetSessionRequest(name=_name("sessions", session))
        return (await self._call(self._sessions.GetSession, request)).session

    async def list_sessions(self) -> AsyncGenerator[sessions_pb2.Session, None]:
        """All conversations of the caller, last used first, without their turns."""
        request = sessions_pb2.ListSessionsRequest()
        while True:
            page = await self._call(self._sessions.ListSessions, request)
            for session in page.sessions:
                yield session
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def delete_session(self, session: str) -> None:
        """Deletes a conversation."""
        request = sessions_pb2.DeleteSessionRequest(name=_name("sessions", session))
        await self._call(self._sessions.DeleteSession, request)

    # --- The mesh ---

    async def status(self) -> Sequence[server_pb2.ServerInfo]:
        """Each server's health, version and load, the gateway first."""
        return (await self._call(self._mesh.GetMeshStatus, mesh_pb2.GetMeshStatusRequest())).servers

    async def models(self) -> Sequence[generator_pb2.ModelInfo]:
        """The models that questions can name, the default one first."""
        return (await self._call(self._mesh.ListModels, mesh_pb2.ListModelsRequest())).models

    async def _call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request
    ) -> _Response:
        with translated():
            return await method(request, timeout=self._timeout_s, metadata=self._metadata)


async def _drained(
    call: grpc.aio.UnaryStreamCall[Any, _Response] | grpc.aio.StreamStreamCall[Any, _Response],
) -> AsyncGenerator[_Response, None]:
    """The messages of a streaming call, which is cancelled when the reader leaves."""
    try:
        with translated():
            async for response in call:
                yield response
    finally:
        call.cancel()


def _name(kind: str, given: str) -> str:
    return given if given.startswith(f"{kind}/") else f"{kind}/{given}"
