"""Attempts at a document: again while something is away, some times where nobody knows what is to blame."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from ingest_svc.cancelling import Cancelling
from ingest_svc.catalog import Document, now
from ingest_svc.jobs import Ended
from ingest_svc.work import Pace, WorkItem, backoff_s
from meshkit import deadline
from meshkit.deadline import Deadline
from meshkit.errors import Cancelled, DeadlineExceeded, Internal, MeshError

logger = logging.getLogger(__name__)

# Something is away or busy: the document is not to blame, and it is tried for as long as `retry_for_s`.
_AWAY = ("UNAVAILABLE", "ABORTED")
# Nobody knows whether the document is to blame: `max_attempts` decide.
FAULTS = ("INTERNAL", "DEADLINE_EXCEEDED", "CANCELLED", "DATA_LOSS")


Attempt = Callable[[], Awaitable[Document]]


@dataclass(frozen=True, slots=True)
class Patience:
    """Bounds of the work on one document, and how fast it is tried again."""

    attempt_timeout_s: float
    max_attempts: int
    retry_for_s: float
    lock_wait_s: float
    pace: Pace


class Superseded(Exception):
    """The work on a document is no longer wanted."""


class Switching(Exception):
    """Another index takes the place of the one worked for: the work is given back, to be taken on once more."""


class Attempts:
    """Makes attempts with patience; lives as long as its process, nothing to close."""

    def __init__(self, cancelling: Cancelling, patience: Patience) -> None:
        self.patience = patience
        self._cancelling = cancelling

    async def make(self, item: WorkItem, document: Document, attempt: Attempt) -> Document | MeshError:
        """What the attempt came to in the end, or why the last one failed; raises Superseded and Switching.

        It fails, and stops, when the item's job is cancelled.
        """
        try:
            return await self._cancelling.guard(item.tenant, item.job, self._made_in_the_end(document, attempt))
        except Ended:
            return Cancelled("CANCELLED", "its job was cancelled")

    async def _made_in_the_end(self, document: Document, attempt: Attempt) -> Document | MeshError:
        attempts = faults = 0
        while True:
            attempts += 1
            made = await self._made(document, attempt)
            if isinstance(made, Document):
                return made
            faults += made.code in FAULTS
            if not self._worth_another(made, faults, document):
                return made
            logger.warning("%s: attempt %d failed, will retry: %s", document.name, attempts, made)
            await asyncio.sleep(backoff_s(attempts, self.patience.pace))

    async def _made(self, document: Document, attempt: Attempt) -> Document | MeshError:
        limit_s = self.patience.attempt_timeout_s
        try:
            with deadline.using(Deadline.after(limit_s)):
                async with asyncio.timeout(limit_s):
                    return await attempt()
        except (Superseded, Switching):
            raise
        except TimeoutError:
            return DeadlineExceeded("DEADLINE_EXCEEDED", f"it was not done within {limit_s:g} s")
        except MeshError as error:
            return error
        except Exception:
            logger.exception("%s: unexpected error", document.name)
            return Internal("INTERNAL_ERROR", "internal error")

    def _worth_another(self, error: MeshError, faults: int, document: Document) -> bool:
        waited = now() - document.stored_time
        if waited > timedelta(seconds=self.patience.retry_for_s):
            return False
        if error.code in FAULTS:
            return faults < self.patience.max_attempts
        return error.code in _AWAY or error.reason == "OVERLOADED"
