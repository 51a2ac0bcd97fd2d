"""The records kept of collections and documents, and what keeps them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from ingest_svc.chunking import Choice, Chunking
from ingest_svc.failure import Failure
from ingest_svc.work import WorkItem


class Record(BaseModel):
    """A value that is kept as JSON; a change makes a new one."""

    model_config = ConfigDict(frozen=True)


class EncoderCard(Record):
    """An encoder; `max_tokens` is the longest text that it reads whole."""

    model: str
    revision: str
    dimension: int
    max_tokens: int

    @property
    def name(self) -> str:
        """`model@revision`: equal where vectors may be compared."""
        return f"{self.model}@{self.revision}"


class FilterableField(Record):
    """A field of the metadata that filters may name."""

    field: str
    type: Literal["STRING", "NUMBER", "BOOL", "STRING_LIST"]


class Rebuild(Record):
    """An index that a job builds beside a collection's own: by which encoder, and in which language."""

    job: str
    encoder: EncoderCard
    language: str


class Collection(Record):
    """A knowledge base of one tenant; `fusion` is passed on to the index as it was given.

    While it has a `rebuild`, its documents are written to that index too, and deleted from it first.
    """

    id: str
    display_name: str = ""
    description: str = ""
    chunking: Chunking
    encoder: EncoderCard
    language: str = ""
    fusion: dict[str, Any] | None = None
    filterable_fields: tuple[FilterableField, ...] = ()
    rebuild: Rebuild | None = None
    create_time: datetime
    update_time: datetime
    revision: int = 1

    @property
    def name(self) -> str:
        return f"collections/{self.id}"

    @property
    def etag(self) -> str:
        return str(self.revision)

    @property
    def beside(self) -> "Collection | None":
        """The collection as the index being built has it, under a name that no caller can give one."""
        if self.rebuild is None:
            return None
        values = {"encoder": self.rebuild.encoder, "language": self.rebuild.language, "rebuild": None}
        return self.model_copy(update={**values, "id": f"_{self.id}"})

    def revised(self, **values: Any) -> "Collection":
        """The next revision, with other values."""
        return self.model_copy(update={**values, "revision": self.revision + 1})


class DocumentState(StrEnum):
    """How far a document has come."""

    RECEIVING = "RECEIVING"
    STORED = "STORED"
    PARSING = "PARSING"
    CHUNKING = "CHUNKING"
    EMBEDDING = "EMBEDDING"
    INDEXING = "INDEXING"
    READY = "READY"
    FAILED = "FAILED"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in (DocumentState.READY, DocumentState.FAILED)


class Revision(Record):
    """An earlier content of a document."""

    content_hash: str
    chunking: Chunking
    parser: str
    chunk_count: int
    create_time: datetime
    encoder: str = ""
    size_bytes: int = 0
    page_count: int = 0
    token_count: int = 0
    warnings: tuple[str, ...] = ()
    timings: tuple["Timing", ...] = ()


class Timing(Record):
    """A stage: seconds from when the document was stored to its start, and seconds that it took."""

    stage: str
    start_s: float
    duration_s: float


class FailedReplacement(Record):
    """A newer content that could not be taken in, so that the one before it stayed."""

    content_hash: str
    size_bytes: int
    failure: Failure
    create_time: datetime
    generation: str


class Document(Record):
    """What was given, and how far it has come.

    `fingerprint` stands for the content and all that decides what becomes of it. `generation` is new each time that the
    document is given, and "" once it is being deleted: who works on another one must stop. `chunking` is how it is
    asked to be cut, `choice` what came of that. `object` names its bytes in the object store. `job`, `source` and
    `source_version` say which job brought it, from where and in what version. `words_only`: the index may hold chunks
    of it, or of what it was before, without vectors. `kept_bytes`: what its chunks take up that are kept while it waits
    for its vectors, 0 where it does not. `standing`: the record of what it was when it was last ready, which stays
    until this content is; its bytes are kept as long. `failed_replacement`: what it should have become since then.
    """

    collection: str
    id: str
    state: DocumentState
    failure: Failure | None = None
    given_title: str = ""
    title: str = ""
    uri: str = ""
    media_type: str = ""
    size_bytes: int = 0
    content_hash: str
    metadata: dict[str, Any] = {}
    page_count: int = 0
    chunk_count: int = 0
    token_count: int = 0
    chunking: Chunking
    choice: Choice | None = None
    parser: str = ""
    warnings: tuple[str, ...] = ()
    timings: tuple[Timing, ...] = ()
    create_time: datetime
    update_time: datetime
    stored_time: datetime
    history: tuple[Revision, ...] = ()
    searchable_time: datetime | None = None
    encoder: str = ""
    words_only: bool = False
    kept_bytes: int = 0
    fingerprint: str
    generation: str
    object: str
    job: str = ""
    source: str = ""
    source_version: str = ""
    standing: "Document | None" = None
    failed_replacement: FailedReplacement | None = None

    @property
    def name(self) -> str:
        return f"collections/{self.collection}/documents/{self.id}"

    @property
    def cut_by(self) -> Chunking:
        """How it was cut or, before that, how it was asked to be."""
        return self.choice.chunking if self.choice else self.chunking

    def failed(self, failure: Failure) -> "Document":
        """The document, failed: the end of this content."""
        values = {"failure": failure, "words_only": False, "chunk_count": 0, "standing": None}
        return self.changed(state=DocumentState.FAILED, **values)

    def given_as(self, generation: str) -> "Document | None":
        """The document as it was given in that generation, failed where this one stayed instead; None for others."""
        if self.generation == generation:
            return self
        lost = self.failed_replacement
        if lost is None or lost.generation != generation:
            return None
        values = {"generation": generation, "content_hash": lost.content_hash, "size_bytes": lost.size_bytes}
        return self.model_copy(update={**values, "stored_time": lost.create_time}).failed(lost.failure)

    def within(self, collection: Collection) -> "Document":
        """The document under its name in another collection."""
        return self.model_copy(update={"collection": collection.id})

    def changed(self, **values: Any) -> "Document":
        """The record with other values, changed now."""
        return self.model_copy(update={**values, "update_time": now()})


@dataclass(frozen=True, slots=True)
class Request:
    """A caller's id of a call that may come again, and a digest of the rest of the call."""

    id: str
    digest: str


class Catalog(Protocol):
    """Keeps the records of each tenant apart; every method raises STORE_UNAVAILABLE where its store is away."""

    async def create_collection(self, tenant: str, collection: Collection, request: Request | None) -> None:
        """Keep a new collection, and that the request made it; the caller holds the collection's lock."""

    async def created_by(self, tenant: str, request: Request) -> str:
        """The id of the collection that the request made, or ""; raises REQUEST_ID_REUSED for another request."""

    async def find_collection(self, tenant: str, id: str) -> Collection | None: ...

    async def get_collection(self, tenant: str, id: str) -> Collection:
        """The collection; raises COLLECTION_NOT_FOUND."""

    async def list_collections(self, tenant: str, after: str, limit: int) -> Sequence[Collection]:
        """Collections by id, those behind the id `after`."""

    async def replace_collection(self, tenant: str, collection: Collection) -> bool:
        """Keep a collection in place of its last revision; False where that is not the one kept."""

    async def remove_collection(self, tenant: str, id: str) -> None:
        """Forget a collection and its documents."""

    async def accept(self, tenant: str, subject: str, document: Document, generation: str) -> bool:
        """Keep a document in place of that generation ("" for none) and queue the work on it, both or neither.

        False where another generation is kept. Raises COLLECTION_NOT_FOUND.
        """

    async def queue(self, tenant: str, subject: str, document: Document, job: str) -> None:
        """Queue the work on a document once more, on behalf of another job."""

    async def hand_over(self, item: WorkItem, document: Document) -> bool:
        """Keep a document in place of the item's generation and queue the item for its vectors, both or neither.

        False where another generation is kept.
        """

    async def find_document(self, tenant: str, collection: str, id: str) -> Document | None: ...

    async def get_document(self, tenant: str, collection: str, id: str) -> Document:
        """The document; raises COLLECTION_NOT_FOUND or DOCUMENT_NOT_FOUND."""

    async def list_documents(self, tenant: str, collection: str, after: str, limit: int) -> Sequence[Document]:
        """Documents by id, those behind the id `after`; raises COLLECTION_NOT_FOUND."""

    async def count_documents(self, tenant: str, collection: str) -> int: ...

    async def replace_document(self, tenant: str, document: Document, generation: str) -> bool:
        """Keep a document in place of that generation; False where another, or none, is kept."""

    async def remove_document(self, tenant: str, document: Document) -> None:
        """Forget a document whose generation is "", unless it was given again."""


def now() -> datetime:
    """The time of day, with its zone."""
    return datetime.now(UTC)
