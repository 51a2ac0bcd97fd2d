"""The inbox of browsers' uploads, beside the objects in their store."""

import re
import uuid
from datetime import timedelta

import obstore

from ingest_svc.catalog import now
from ingest_svc.inviting import Invitation
from ingest_svc.jobs import Entry, Source, not_readable
from ingest_svc.obstore_source import LoneObject, source_errors, version
from ingest_svc.obstore_store import StoreOptions, open_store, store_errors
from ingest_svc.places import Place

# The tenant is not in it: it is the caller's. The file's name, if any, is for people and parsers.
_URI = re.compile(r"upload://([0-9a-f]{32})(?:/([^/\x00-\x1f\x7f]{1,255}))?")


class ObstoreInbox:
    """`upload://` objects, each for one job of its tenant; nothing to close. See Inbox and Sources."""

    def __init__(self, place: Place, options: StoreOptions, url_ttl_s: float) -> None:
        self._store = open_store(place, options)
        self._place = place
        self._url_ttl = timedelta(seconds=url_ttl_s)

    async def invite(self, tenant: str) -> Invitation:
        id, expire_time = uuid.uuid4().hex, now() + self._url_ttl
        with store_errors():
            url = await obstore.sign_async(self._store, "PUT", self._key(tenant, id), self._url_ttl)
        return Invitation(url, f"upload://{id}", expire_time)

    async def open(self, tenant: str, uri: str) -> Source:
        found = _URI.fullmatch(uri)
        if found is None:
            raise not_readable(uri)
        id, name = found.groups(default="")
        with source_errors(uri):
            meta = await obstore.head_async(self._store, self._key(tenant, id))
        return LoneObject(self._store, meta["path"], Entry(name or id, uri, meta["size"], version(meta)))

    async def forget(self, tenant: str, uri: str) -> None:
        found = _URI.fullmatch(uri)
        if found is None:
            return
        with store_errors():
            try:
                await obstore.delete_async(self._store, self._key(tenant, found[1]))
            except FileNotFoundError:
                return

    def _key(self, tenant: str, id: str) -> str:
        return self._place.key(f"uploads/{tenant}/{id}")
