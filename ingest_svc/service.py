"""The services of ingestion: messages to dataclasses and back."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc

from ingest_svc.catalog import Catalog, Collection
from ingest_svc.chunking import Strategies
from ingest_svc.following import Following
from ingest_svc.importing import Import, Importing
from ingest_svc.index import Index, Part
from ingest_svc.intake import Accepted, Intake, Origin
from ingest_svc.inviting import Inviting
from ingest_svc.keeping import SETTINGS, Keeping
from ingest_svc.recommending import recommend
from ingest_svc.uploading import Begin, Bytes, Uploading
from ingest_svc.wire import (
    document_ids,
    last_id,
    read_head,
    read_import,
    read_page,
    read_request,
    read_upload,
    read_wanted,
    write_chunking,
    write_collection,
    write_invitation,
    write_next,
    write_progress,
    write_strategy,
)
from ingest_svc.wire_documents import write_document
from meshkit.errors import InvalidArgument, invalid
from meshkit.identity import acting_as, current, require_scope
from meshkit.validation import Validation
from ragmesh.ingest.v1 import (
    chunking_pb2,
    chunking_pb2_grpc,
    collections_pb2,
    collections_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
)

Context = grpc.aio.ServicerContext[Any, Any]

_SCOPE = "ingest"


class CollectionService(collections_pb2_grpc.CollectionServiceServicer):
    """Keeps the collections of the caller's tenant."""

    def __init__(self, keeping: Keeping, catalog: Catalog, index: Index) -> None:
        self._keeping = keeping
        self._catalog = catalog
        self._index = index

    async def CreateCollection(
        self, request: collections_pb2.CreateCollectionRequest, context: Context
    ) -> collections_pb2.CreateCollectionResponse:
        require_scope(_SCOPE)
        again = read_request(request, request.request_id)
        wanted = read_wanted(request.collection)
        made = await self._keeping.create(current().tenant, request.collection_id, wanted, again)
        return collections_pb2.CreateCollectionResponse(collection=await self._counted(made))

    async def GetCollection(
        self, request: collections_pb2.GetCollectionRequest, context: Context
    ) -> collections_pb2.GetCollectionResponse:
        found = await self._catalog.get_collection(current().tenant, last_id(request.name))
        return collections_pb2.GetCollectionResponse(collection=await self._counted(found))

    async def ListCollections(
        self, request: collections_pb2.ListCollectionsRequest, context: Context
    ) -> collections_pb2.ListCollectionsResponse:
        tenant, scope = current().tenant, f"ListCollections {current().tenant}"
        after, size = read_page(request, scope)
        found = await self._catalog.list_collections(tenant, after, size + 1)
        shown = await asyncio.gather(*(self._counted(each) for each in found[:size]))
        return collections_pb2.ListCollectionsResponse(
            collections=shown, next_page_token=write_next(found, size, scope)
        )

    async def UpdateCollection(
        self, request: collections_pb2.UpdateCollectionRequest, context: Context
    ) -> collections_pb2.UpdateCollectionResponse:
        require_scope(_SCOPE)
        asked = request.collection
        names = _settings_named(request)
        if not asked.name:
            raise invalid("collection.name", "is missing")
        tenant, id = current().tenant, last_id(asked.name)
        changed = await self._keeping.update(tenant, id, read_wanted(asked), names, asked.etag)
        return collections_pb2.UpdateCollectionResponse(collection=await self._counted(changed))

    async def DeleteCollection(
        self, request: collections_pb2.DeleteCollectionRequest, context: Context
    ) -> collections_pb2.DeleteCollectionResponse:
        require_scope(_SCOPE)
        await self._keeping.delete(current().tenant, last_id(request.name), force=request.force)
        return collections_pb2.DeleteCollectionResponse()

    async def _counted(self, collection: Collection) -> collections_pb2.Collection:
        # Who may see a collection may see how large it is, though only ingestion may ask the index.
        with acting_as(replace(current(), scopes=frozenset({_SCOPE}))):
            return write_collection(collection, await self._index.stats(collection.name))


def _settings_named(request: collections_pb2.UpdateCollectionRequest) -> Sequence[str]:
    """The settings to change: those of the mask or, without one, those that are set."""
    paths = list(request.update_mask.paths)
    for path in paths:
        if path not in SETTINGS:
            raise invalid("update_mask", f"{path} is no setting of a collection")
    return paths or [field.name for field, _ in request.collection.ListFields() if field.name in SETTINGS]


class DocumentService(documents_pb2_grpc.DocumentServiceServicer):
    """Takes documents in and keeps account of them."""

    def __init__(
        self,
        catalog: Catalog,
        intake: Intake,
        uploading: Uploading,
        importing: Importing,
        following: Following,
        inviting: Inviting,
    ) -> None:
        self._catalog = catalog
        self._intake = intake
        self._uploading = uploading
        self._importing = importing
        self._following = following
        self._inviting = inviting
        self._validation = Validation()

    async def UploadDocument(
        self, request_iterator: AsyncIterator[documents_pb2.UploadDocumentRequest], context: Context
    ) -> AsyncGenerator[documents_pb2.UploadDocumentResponse]:
        require_scope(_SCOPE)
        caller, messages = current(), _messages(request_iterator)
        async with (
            aclosing(messages),
            aclosing(self._uploading.upload(caller.tenant, caller.subject, messages)) as progress,
        ):
            async for each in progress:
                yield documents_pb2.UploadDocumentResponse(progress=write_progress(each))

    async def CreateDocument(
        self, request: documents_pb2.CreateDocumentRequest, context: Context
    ) -> documents_pb2.CreateDocumentResponse:
        require_scope(_SCOPE)
        caller, head = current(), read_head(self._head(request), "document")
        admitted = await self._intake.admit(caller.tenant, head)
        data = request.text.encode() if request.WhichOneof("content") == "text" else request.data
        accepted = await self._uploading.take(caller.tenant, caller.subject, admitted, data)
        if request.wait:
            await self._ended(caller.tenant, accepted)
        kept = accepted.document
        document = await self._catalog.get_document(caller.tenant, kept.collection, kept.id)
        return documents_pb2.CreateDocumentResponse(document=write_document(document))

    async def CheckDocument(
        self, request: documents_pb2.CheckDocumentRequest, context: Context
    ) -> documents_pb2.CheckDocumentResponse:
        require_scope(_SCOPE)
        caller, head = current(), read_head(request.document, "document")
        origin = Origin(caller.tenant, caller.subject, source=request.source_uri, version=request.source_version)
        found = await self._importing.check(origin, head, request.content_hash)
        document = write_document(found) if found else None
        return documents_pb2.CheckDocumentResponse(unchanged=found is not None, document=document)

    async def ImportDocument(
        self, request_iterator: AsyncIterator[documents_pb2.ImportDocumentRequest], context: Context
    ) -> documents_pb2.ImportDocumentResponse:
        require_scope(_SCOPE)
        caller, messages = current(), _imported(request_iterator)
        async with aclosing(messages):
            accepted = await self._importing.take(caller.tenant, caller.subject, messages)
        document = write_document(accepted.document)
        return documents_pb2.ImportDocumentResponse(document=document, unchanged=accepted.unchanged)

    async def CreateUploadUrl(
        self, request: documents_pb2.CreateUploadUrlRequest, context: Context
    ) -> documents_pb2.CreateUploadUrlResponse:
        require_scope(_SCOPE)
        tenant, collection = current().tenant, last_id(request.parent)
        return write_invitation(await self._inviting.invite(tenant, collection, request.size_bytes))

    async def GetDocument(
        self, request: documents_pb2.GetDocumentRequest, context: Context
    ) -> documents_pb2.GetDocumentResponse:
        collection, id = document_ids(request.name)
        document = await self._catalog.get_document(current().tenant, collection, id)
        return documents_pb2.GetDocumentResponse(document=write_document(document))

    async def ListDocuments(
        self, request: documents_pb2.ListDocumentsRequest, context: Context
    ) -> documents_pb2.ListDocumentsResponse:
        tenant, scope = current().tenant, f"ListDocuments {current().tenant} {request.parent}"
        after, size = read_page(request, scope)
        found = await self._catalog.list_documents(tenant, last_id(request.parent), after, size + 1)
        return documents_pb2.ListDocumentsResponse(
            documents=map(write_document, found[:size]), next_page_token=write_next(found, size, scope)
        )

    async def DeleteDocument(
        self, request: documents_pb2.DeleteDocumentRequest, context: Context
    ) -> documents_pb2.DeleteDocumentResponse:
        require_scope(_SCOPE)
        deleted = await self._intake.delete(current().tenant, *document_ids(request.name))
        return documents_pb2.DeleteDocumentResponse(deleted_chunks=deleted)

    def _head(self, request: documents_pb2.CreateDocumentRequest) -> documents_pb2.DocumentHead:
        """The head with its parent filled in, and checked then: by itself it may leave the parent out."""
        head = documents_pb2.DocumentHead()
        head.CopyFrom(request.document)
        if head.parent not in ("", request.parent):
            raise invalid("document.parent", "is not the request's parent")
        head.parent = request.parent
        try:
            self._validation.check(head)
        except InvalidArgument as error:
            raise _within("document", error) from error
        return head

    async def _ended(self, tenant: str, accepted: Accepted) -> None:
        async with aclosing(self._following.follow(tenant, accepted)) as progress:
            async for _ in progress:
                pass


async def _messages(
    requests: AsyncIterator[documents_pb2.UploadDocumentRequest],
) -> AsyncGenerator[Begin | Bytes]:
    async for request in requests:
        yield read_upload(request)


async def _imported(
    requests: AsyncIterator[documents_pb2.ImportDocumentRequest],
) -> AsyncGenerator[Import | Bytes | Part]:
    async for request in requests:
        yield read_import(request)


def _within(field: str, error: InvalidArgument) -> InvalidArgument:
    """The error of a message as that of the field which holds it."""
    violations = [replace(each, field=f"{field}.{each.field}") for each in error.violations]
    metadata = {"field": violations[0].field}
    return InvalidArgument(error.reason, f"{field}.{error.message}", metadata=metadata, violations=violations)


class ChunkingService(chunking_pb2_grpc.ChunkingServiceServicer):
    """Says how documents can be cut."""

    def __init__(self, strategies: Strategies) -> None:
        self._strategies = strategies

    async def ListChunkingStrategies(
        self, request: chunking_pb2.ListChunkingStrategiesRequest, context: Context
    ) -> chunking_pb2.ListChunkingStrategiesResponse:
        return chunking_pb2.ListChunkingStrategiesResponse(strategies=map(write_strategy, self._strategies))

    async def RecommendChunkingStrategy(
        self, request: chunking_pb2.RecommendChunkingStrategyRequest, context: Context
    ) -> chunking_pb2.RecommendChunkingStrategyResponse:
        choice = recommend(request.media_type, request.sample, request.use_case)
        return chunking_pb2.RecommendChunkingStrategyResponse(
            chunking=write_chunking(choice.chunking), rationale=choice.rationale
        )
