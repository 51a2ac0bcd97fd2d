"""Following a document until it can be found or has failed, on whatever replica the work is done."""

from collections.abc import AsyncGenerator

from ingest_svc.catalog import Catalog, Document
from ingest_svc.failure import Failure
from ingest_svc.intake import Accepted
from ingest_svc.progress import Progress, ProgressBus, progress_of
from meshkit.errors import Aborted


class Following:
    """Tells how documents come along; lives as long as its process, nothing to close."""

    def __init__(self, catalog: Catalog, bus: ProgressBus, poll_s: float) -> None:
        self._catalog = catalog
        self._bus = bus
        self._poll_s = poll_s

    async def follow(self, tenant: str, accepted: Accepted) -> AsyncGenerator[Progress]:
        """The document's progress from here to its end, which comes last; close it where it may be left early.

        A document whose place another content takes, or that is deleted, ends as failed.
        """
        document = accepted.document
        shown = progress_of(document).model_copy(update={"unchanged": accepted.unchanged})
        yield shown
        async with self._bus.watch(tenant, document.name) as watch:
            told: Progress | None = None
            while not shown.state.ended:
                # The record first: it moved on before the watch was opened, or news of it got lost.
                progress = told or await self._recorded(tenant, document)
                if progress.generation == document.generation and _differ(progress, shown):
                    shown = progress
                    yield shown
                if not shown.state.ended:
                    told = await watch.next(self._poll_s)

    async def _recorded(self, tenant: str, document: Document) -> Progress:
        kept = await self._catalog.find_document(tenant, document.collection, document.id)
        given = kept.given_as(document.generation) if kept else None
        if given is not None:
            return progress_of(given)
        error = Aborted("CANCELLED", "the document was changed or deleted meanwhile")
        return progress_of(document.failed(Failure.of(error)))


def _differ(one: Progress, other: Progress) -> bool:
    return (one.state, one.chunks_done, one.searchable) != (other.state, other.chunks_done, other.searchable)
