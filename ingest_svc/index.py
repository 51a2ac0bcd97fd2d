"""The index as ingestion sees it."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ingest_svc.catalog import Collection, Document
from ingest_svc.chunking import Chunk
from ingest_svc.encoder import Vectors


@dataclass(frozen=True, slots=True)
class IndexStats:
    """What a collection's index holds, by which encoder (name@revision) and in which language."""

    documents: int = 0
    chunks: int = 0
    version: int = 0
    encoder: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """Some of a document's chunks, in order, and their vectors; None for those that are found by words only."""

    chunks: Sequence[Chunk]
    vectors: Vectors | None


class IndexWriter(Protocol):
    """Takes the chunks of documents, for the tenant of the caller."""

    async def write(
        self, document: Document, encoder: str, metadata: dict[str, Any], parts: AsyncGenerator[Part]
    ) -> None:
        """Put the chunks in place of those that the document had; a failure of `parts` changes nothing.

        Raises ENCODER_MISMATCH where the index is of another encoder than `encoder`, name@revision.
        """


class Index(IndexWriter, Protocol):
    """Holds the chunks of collections; acts on the tenant of the current identity, raises what its service answers."""

    async def put(self, collection: Collection) -> None:
        """Make the collection's index or change its settings."""

    async def stats(self, collection: str) -> IndexStats:
        """What the index of `collections/{id}` holds; nothing where there is none."""

    async def delete(self, collection: str) -> None:
        """Delete the index of `collections/{id}`; one that is not there is no failure."""

    async def switch(self, collection: str, target: str) -> None:
        """Put the index of `target` in the place of the collection's, in one step; then there is no target."""

    async def delete_document(self, document: Document) -> int:
        """Delete the document's chunks and say how many; none where its index is not there."""


async def delete_everywhere(index: Index, collection: Collection | None, document: Document) -> int:
    """Delete the document's chunks from the collection's index and say how many, also from one being built beside it.

    From that first: should it take the other's place meanwhile, the second deletion is from it again.
    """
    beside = collection.beside if collection else None
    if beside is not None:
        await index.delete_document(document.within(beside))
    return await index.delete_document(document)
