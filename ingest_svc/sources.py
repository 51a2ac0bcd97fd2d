"""The places that jobs may read, of all kinds, by the scheme of their URIs."""

from collections.abc import Mapping

from ingest_svc.jobs import Source, Sources, not_readable


class SourcesByScheme:
    """Hands each URI to the sources of its scheme; nothing to close. See Sources."""

    def __init__(self, by_scheme: Mapping[str, Sources]) -> None:
        self._by_scheme = by_scheme

    async def open(self, tenant: str, uri: str) -> Source:
        sources = self._by_scheme.get(_scheme(uri))
        if sources is None:
            raise not_readable(uri)
        return await sources.open(tenant, uri)

    async def forget(self, tenant: str, uri: str) -> None:
        sources = self._by_scheme.get(_scheme(uri))
        if sources is not None:
            await sources.forget(tenant, uri)


def _scheme(uri: str) -> str:
    return uri.partition(":")[0]
