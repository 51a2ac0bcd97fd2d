"""Documents on their way in and out: checked, stored, queued; and deleted again."""

import hashlib
import json
import re
import unicodedata
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from ingest_svc import metadata
from ingest_svc.catalog import Catalog, Collection, Document, DocumentState, Revision, now
from ingest_svc.chunking import Chunking, Strategies
from ingest_svc.index import Index, delete_everywhere
from ingest_svc.objects import ObjectStore, Upload
from ingest_svc.pipeline import Pipeline
from ingest_svc.work import Locks
from meshkit.errors import InvalidArgument, MeshError

_NOT_ID = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_SLUG_CHARS = 80
_MAX_REVISIONS = 20


@dataclass(frozen=True, slots=True)
class Head:
    """What comes with a document's bytes; `chunking` is a strategy's name and parameters, None the collection's."""

    collection: str
    document_id: str = ""
    title: str = ""
    uri: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    chunking: tuple[str, Mapping[str, Any]] | None = None
    password: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Origin:
    """Who gave a document and, where a job did, which one, from what source and in what version there."""

    tenant: str
    subject: str
    job: str = ""
    source: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A head that was checked, its collection, and how the document will be cut."""

    head: Head
    collection: Collection
    chunking: Chunking


@dataclass(frozen=True, slots=True)
class Accepted:
    """A document that is stored and queued, or was indexed before, byte for byte."""

    document: Document
    unchanged: bool


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """Bounds of a document, and how long a deletion waits for the work on it to stop."""

    max_document_bytes: int
    max_metadata_bytes: int
    lock_wait_s: float


class Intake:
    """Takes in and deletes documents; lives as long as its process, nothing to close."""

    def __init__(
        self,
        catalog: Catalog,
        objects: ObjectStore,
        index: Index,
        pipeline: Pipeline,
        locks: Locks,
        strategies: Strategies,
        limits: IntakeLimits,
    ) -> None:
        self.limits = limits
        self._catalog = catalog
        self._objects = objects
        self._index = index
        self._pipeline = pipeline
        self._locks = locks
        self._strategies = strategies

    async def admit(self, tenant: str, head: Head, field: str = "document") -> Admitted:
        """Check a head, before any byte is taken; `field` is the request's field that holds it.

        Raises COLLECTION_NOT_FOUND, STRATEGY_NOT_FOUND, TOO_LARGE or INVALID_FIELD.
        """
        collection = await self._catalog.get_collection(tenant, head.collection)
        self.check_size(head.size_bytes)
        metadata.check(head.metadata, collection.filterable_fields, self.limits.max_metadata_bytes, f"{field}.metadata")
        chunking = collection.chunking
        if head.chunking is not None:
            chunking = self._strategies.resolve(*head.chunking, field=f"{field}.chunking")
        return Admitted(head, collection, chunking)

    def check_size(self, size: int) -> None:
        """Raise TOO_LARGE for more bytes than a document may have."""
        limit = self.limits.max_document_bytes
        if size > limit:
            details = {"limit_bytes": str(limit), "bytes": str(size)}
            raise InvalidArgument("TOO_LARGE", f"a document has at most {limit} bytes", metadata=details)

    async def indexed(self, origin: Origin, admitted: Admitted) -> Document | None:
        """The document, where what its source has by the origin's version is indexed in the same way; else None."""
        head = admitted.head
        before = await self._catalog.find_document(origin.tenant, head.collection, document_id(head.uri))
        if before is None or before.state is not DocumentState.READY:
            return None
        same = new_document(origin, admitted, before.size_bytes, before.content_hash)
        known = (origin.version, same.fingerprint) == (before.source_version, before.fingerprint)
        return before if known and origin.version else None

    async def indexed_content(self, origin: Origin, admitted: Admitted, content_hash: str) -> Document | None:
        """The document, where that content is indexed in that way; else None. Its version is kept then."""
        same = new_document(origin, admitted, 0, content_hash)
        before = await self._catalog.find_document(origin.tenant, same.collection, same.id)
        known = await self._known(origin, before, same)
        return known.document if known and known.unchanged else None

    async def accept(self, origin: Origin, admitted: Admitted, upload: Upload) -> Accepted:
        """Store the bytes and queue the work; when this returns, the document survives any crash.

        The same content under the same name, indexed in the same way, is left as it is. Raises COLLECTION_NOT_FOUND,
        STORE_UNAVAILABLE.
        """
        document = new_document(origin, admitted, upload.size, upload.content_hash)
        stored = False
        while True:
            before = await self._catalog.find_document(origin.tenant, document.collection, document.id)
            known = await self._known(origin, before, document)
            if known is not None:
                await (self._pipeline.remove_content(document) if stored else upload.discard())
                return known
            if not stored:
                await self._store(document, upload, admitted.head.password)
                stored = True
            if await self._replace(origin, before, document):
                return Accepted(document, unchanged=False)

    async def _known(self, origin: Origin, before: Document | None, document: Document) -> Accepted | None:
        """The document as it was given before, where that content is indexed or on its way there."""
        if before is None or before.fingerprint != document.fingerprint or before.state is DocumentState.FAILED:
            return None
        if before.state is DocumentState.READY:
            await self._keep_version(origin, before)
            return Accepted(before, unchanged=True)
        # Who is at it goes on; a job that did not queue it is told of its end by an item of its own.
        if origin.job not in ("", before.job):
            await self._catalog.queue(origin.tenant, origin.subject, before, origin.job)
        return Accepted(before, unchanged=False)

    async def _keep_version(self, origin: Origin, document: Document) -> None:
        """So that the next job need not read what has another version and the same content."""
        if origin.version not in ("", document.source_version):
            versioned = document.model_copy(update={"source_version": origin.version})
            await self._catalog.replace_document(origin.tenant, versioned, document.generation)

    async def _replace(self, origin: Origin, before: Document | None, document: Document) -> bool:
        """Keep the document in place of the one before; False where another call was faster."""
        document = _following(before, document)
        generation = before.generation if before else ""
        if not await self._catalog.accept(origin.tenant, origin.subject, document, generation):
            return False
        if before and before.state is not DocumentState.READY:
            await self._pipeline.remove_content(before)
        return True

    async def _store(self, document: Document, upload: Upload, password: str) -> None:
        await upload.store(document.object)
        if password:
            await self._unlock(document, password)

    async def delete(self, tenant: str, collection: str, id: str) -> int:
        """Delete a document and say how many chunks went with it; a repeated call finishes one that broke off.

        Raises COLLECTION_NOT_FOUND, DOCUMENT_NOT_FOUND, OVERLOADED where the work on it does not stop in time.
        """
        document = await self._withdrawn(tenant, collection, id)
        async with self._locks.hold(tenant, document.name, self.limits.lock_wait_s):
            current = await self._catalog.find_document(tenant, collection, id)
            # Given again meanwhile, it may be indexed already: its chunks took the place of those to delete, or will.
            withdrawn = current is None or not current.generation
            deleted = await self._delete_chunks(tenant, document) if withdrawn else 0
            await self._catalog.remove_document(tenant, document)
        for content in filter(None, (document, document.standing)):
            await self._pipeline.remove_content(content)
        return deleted

    async def _delete_chunks(self, tenant: str, document: Document) -> int:
        collection = await self._catalog.find_collection(tenant, document.collection)
        return await delete_everywhere(self._index, collection, document)

    async def _withdrawn(self, tenant: str, collection: str, id: str) -> Document:
        """The document without a generation: who works on it sees that and stops."""
        while True:
            document = await self._catalog.get_document(tenant, collection, id)
            withdrawn = document.changed(generation="", fingerprint="")
            if await self._catalog.replace_document(tenant, withdrawn, document.generation):
                return withdrawn

    async def _unlock(self, document: Document, password: str) -> None:
        try:
            await self._pipeline.read_locked(document.object, document.uri, password)
        except MeshError as error:
            # The worker, which has no password, will find out the same and keep it as the document's failure.
            if error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                raise


def new_document(origin: Origin, admitted: Admitted, size: int, content_hash: str) -> Document:
    """The record of a document that is being given, its bytes stored."""
    head, at, generation = admitted.head, now(), uuid.uuid4().hex
    id = head.document_id or document_id(head.uri) or content_hash[:32]
    document = Document(
        collection=head.collection,
        id=id,
        state=DocumentState.STORED,
        given_title=head.title,
        title=head.title,
        uri=head.uri,
        size_bytes=size,
        content_hash=content_hash,
        metadata=dict(head.metadata),
        chunking=admitted.chunking,
        create_time=at,
        update_time=at,
        stored_time=at,
        fingerprint="",
        generation=generation,
        object=f"{origin.tenant}/{head.collection}/{id}/{generation}",
        job=origin.job,
        source=origin.source,
        source_version=origin.version,
    )
    return document.model_copy(update={"fingerprint": fingerprint(document, admitted.collection.encoder.name)})


def _following(before: Document | None, document: Document) -> Document:
    """The document with the history of the one that it replaces, and what stays of that until this one is ready."""
    if before is None:
        return document
    history, standing = before.history, before.standing
    if before.state is DocumentState.READY:
        standing = before.model_copy(update={"history": ()})
        revision = Revision(
            content_hash=before.content_hash,
            chunking=before.cut_by,
            parser=before.parser,
            chunk_count=before.chunk_count,
            create_time=before.stored_time,
            encoder=before.encoder,
            size_bytes=before.size_bytes,
            page_count=before.page_count,
            token_count=before.token_count,
            warnings=before.warnings,
            timings=before.timings,
        )
        history = (revision, *history)[:_MAX_REVISIONS]
    values = {"history": history, "standing": standing, "words_only": before.words_only}
    return document.model_copy(update={**values, "create_time": before.create_time})


def fingerprint(document: Document, encoder: str) -> str:
    """What stands for the document's content and all that decides what the encoder, name@revision, makes of it."""
    decisive = [
        document.content_hash,
        document.chunking.model_dump(),
        encoder,
        document.given_title,
        document.uri,
        document.metadata,
    ]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def document_id(uri: str) -> str:
    """The id of the document at a URI: the end of its path, readable, and a short hash; "" for no URI."""
    if not uri:
        return ""
    try:
        path = urlsplit(uri).path
    except ValueError:
        path = uri
    plain = unicodedata.normalize("NFKD", unquote(path)).encode("ascii", "ignore").decode()
    slug = _NOT_ID.sub("-", plain)[-_MAX_SLUG_CHARS:].strip("-._")
    short = hashlib.sha256(uri.encode()).hexdigest()[:10]
    return f"{slug}-{short}" if slug else short
