"""Writes that wait for their turn in one collection and go together when it comes: a commit costs the same for many."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from meshkit.errors import MeshError
from retriever_svc.index import Content, Scope

# The chunks of a group, but for a single document of more.
_MAX_CHUNKS = 2048


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of a write, and the collection's version since."""

    written: int
    deleted: int
    version: int


@dataclass(slots=True, eq=False)
class Write:
    """A document's new content, by whose encoder ("" for any), and what came of it once it was written."""

    content: Content
    encoder: str = ""
    outcome: Written | MeshError | None = None

    def result(self) -> Written:
        """What was written; raises what kept it from being so."""
        match self.outcome:
            case Written() as written:
                return written
            case MeshError() as error:
                raise error
            case None:
                raise RuntimeError("the write has not had its turn")


class Groups:
    """The writes that wait, by collection; lives as long as its process, nothing to close."""

    def __init__(self) -> None:
        # A collection has an entry while somebody waits; `waiting` adds and takes out.
        self._waiting: dict[Scope, list[Write]] = {}

    @contextmanager
    def waiting(self, scope: Scope, write: Write) -> Iterator[None]:
        """Have the write wait in the body, for its own turn or for that of one before it."""
        writes = self._waiting.setdefault(scope, [])
        writes.append(write)
        try:
            yield
        finally:
            writes.remove(write)
            if not writes:
                del self._waiting[scope]

    def group(self, scope: Scope, first: Write) -> list[Write]:
        """The write whose turn it is with those that may go along: in order, and no document twice."""
        group, documents, chunks = [first], {first.content.document}, len(first.content.chunks)
        for write in self._waiting.get(scope, []):
            if write is first or write.outcome is not None:
                continue
            chunks += len(write.content.chunks)
            if write.content.document in documents or chunks > _MAX_CHUNKS:
                break
            group.append(write)
            documents.add(write.content.document)
        return group
