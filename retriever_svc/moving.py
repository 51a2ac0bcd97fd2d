"""Moving collections from one index to another: chunks, vectors, settings and versions."""

from dataclasses import dataclass, replace

from meshkit.errors import FailedPrecondition
from retriever_svc.index import Index, Scope, State, no_collection, stored

# The version of a collection that is not all there yet; no index that is used has it.
_UNDER_WAY = 0


@dataclass(frozen=True, slots=True)
class Moved:
    """How many chunks a collection has where it is now, and whether they were there before."""

    chunks: int
    before: bool


async def move(scope: Scope, source: Index, target: Index) -> Moved:
    """Copy the collection, verify it, and only then let the target say that it has it; the source keeps its own.

    Cut off, it is done again from the start; done again, it only verifies. Nobody writes to either meanwhile. Raises
    NotFound where the source has no such collection, FailedPrecondition (COLLECTION_NOT_EMPTY) where the target has
    another of that name, or counts other chunks than were copied.
    """
    state = await source.load(scope)
    if state is None:
        raise no_collection(scope)
    state, held = replace(state, replaced=None), stored(scope, state.chunks)
    there = await target.load(scope)
    if there and there.version not in (_UNDER_WAY, state.version):
        raise _refused(scope, "the target has another collection of that name")
    chunks = await source.count(held, state.spec)
    before = there == state and await target.count(held, state.spec) == chunks
    if not before:
        await _copy(scope, state, source, target)
    counted = await target.count(held, state.spec)
    if counted != chunks:
        raise _refused(scope, f"the target has {counted} chunks of {chunks}")
    await target.save(scope, state)
    return Moved(chunks, before)


async def _copy(scope: Scope, state: State, source: Index, target: Index) -> None:
    held = stored(scope, state.chunks)
    await target.save(scope, replace(state, version=_UNDER_WAY))
    # What an earlier attempt left, of which the source may have deleted some since.
    await target.delete(held, state.spec)
    async for chunks, vectors in source.scan(held, state.spec):
        await target.upsert(held, state.spec, chunks, vectors)


def _refused(scope: Scope, words: str) -> FailedPrecondition:
    message = f"{scope.tenant}/{scope.collection}: {words}"
    return FailedPrecondition("COLLECTION_NOT_EMPTY", message, metadata={"collection": scope.name})
