"""URLs to which a browser may put a document's bytes by itself, for a job to take in."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ingest_svc.catalog import Catalog
from ingest_svc.intake import Intake
from meshkit.errors import Unimplemented


@dataclass(frozen=True, slots=True)
class Invitation:
    """Where the bytes may be PUT until `expire_time`, and the source of a job that they are then."""

    url: str
    source_uri: str
    expire_time: datetime


class Inbox(Protocol):
    """Where a tenant's bytes wait for the job that takes them in; no other tenant can name them."""

    async def invite(self, tenant: str) -> Invitation:
        """A new place for one document's bytes; raises STORE_UNAVAILABLE."""


class Inviting:
    """Invites uploads; lives as long as its process, nothing to close."""

    def __init__(self, catalog: Catalog, intake: Intake, inbox: Inbox | None) -> None:
        self._catalog = catalog
        self._intake = intake
        self._inbox = inbox

    async def invite(self, tenant: str, collection: str, size_bytes: int) -> Invitation:
        """Where a document of so many bytes, 0 for unknown, may be put.

        Raises COLLECTION_NOT_FOUND, TOO_LARGE, NOT_IMPLEMENTED where the store of documents' bytes is a folder.
        """
        await self._catalog.get_collection(tenant, collection)
        self._intake.check_size(size_bytes)
        if self._inbox is None:
            raise Unimplemented("NOT_IMPLEMENTED", "documents' bytes are kept in a folder, which has no URLs")
        return await self._inbox.invite(tenant)
