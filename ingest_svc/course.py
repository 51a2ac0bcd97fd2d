"""A document on its way through the stages, each timed and told."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from ingest_svc.catalog import Document, DocumentState, Timing, now

# Told the document as it is now and how many of its chunks are encoded; raises where the work is unwanted.
Report = Callable[[Document, int], Awaitable[None]]


async def untold(_document: Document, _encoded: int) -> None:
    """Tell nobody."""


_STAGES = {
    DocumentState.PARSING: "parse",
    DocumentState.CHUNKING: "chunk",
    DocumentState.EMBEDDING: "embed",
    DocumentState.INDEXING: "index",
}


class Course:
    """A document on its way; each stage is timed from its `reach` to the next. Lives for one run.

    The times that its record has of earlier stages stay, those of the stages reached here are taken anew.
    """

    def __init__(self, document: Document, report: Report) -> None:
        self.document = document
        self._report = report
        self._stage = ""
        self._reached_s = 0.0
        self._encoded = 0

    async def reach(self, state: DocumentState, **values: Any) -> None:
        """Begin a stage, and tell it unless it is the one that the document waited for."""
        self._end_stage()
        self._stage, self._reached_s = _STAGES[state], time.monotonic()
        if values or state is not self.document.state:
            self.document = self.document.changed(state=state, **values)
            await self._report(self.document, self._encoded)

    async def encoded(self, chunks: int, *, last: bool) -> None:
        """Tell that so many more chunks have their vectors; of the last ones the next stage tells."""
        self._encoded += chunks
        if not last:
            await self._report(self.document, self._encoded)

    def ready(self, encoder: str) -> Document:
        """The document at its end, its vectors made by the encoder name@revision."""
        self._end_stage()
        searchable = self.document.searchable_time or now()
        values = {"encoder": encoder, "searchable_time": searchable, "words_only": False, "kept_bytes": 0}
        return self.document.changed(state=DocumentState.READY, standing=None, **values)

    def waiting(self, kept_bytes: int) -> Document:
        """The document where its words can be found and its chunks wait for their vectors."""
        self._end_stage()
        return self.document.changed(searchable_time=now(), kept_bytes=kept_bytes)

    def _end_stage(self) -> None:
        if not self._stage:
            return
        took_s = time.monotonic() - self._reached_s
        start_s = max((now() - self.document.stored_time).total_seconds() - took_s, 0.0)
        timing = Timing(stage=self._stage, start_s=start_s, duration_s=took_s)
        others = tuple(each for each in self.document.timings if each.stage != self._stage)
        self.document = self.document.model_copy(update={"timings": (*others, timing)})
