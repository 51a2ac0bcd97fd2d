"""Changing indexes: a document's chunks replaced as one, the version moved with each change."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from meshkit.errors import Aborted, FailedPrecondition, MeshError, invalid
from retriever_svc.filtering import BUILT_IN, Comparison, Condition, Field, FieldType, Operator, parse
from retriever_svc.grouping import Groups, Write, Written
from retriever_svc.index import (
    Chunk,
    Content,
    Index,
    IndexSpec,
    Replaced,
    Scope,
    State,
    Vectors,
    encoder_mismatch,
    find,
    no_collection,
    refuse_dimension,
    refuse_encoder,
    stored,
)
from retriever_svc.reading import Readers
from retriever_svc.turns import Turns

_MAX_COUNTS = 1024


@dataclass(frozen=True, slots=True)
class Counts:
    """What an index holds."""

    chunks: int
    documents: int


class Indexing:
    """Changes the indexes of all tenants; its app opens and closes what it works with.

    The changes of one collection go one after another, and one that has begun ends, also when its caller leaves. The
    order of their steps is such that one cut off by a crash is made good by doing it again.
    """

    def __init__(self, index: Index, turns: Turns, readers: Readers) -> None:
        self._index = index
        self._turns = turns
        self._readers = readers
        self._groups = Groups()
        # The last counts of the collections asked for of late, each good for one version.
        self._counts: OrderedDict[Scope, tuple[int, Counts]] = OrderedDict()

    @property
    def engine(self) -> str:
        """What keeps the chunks."""
        return self._index.engine

    async def get(self, scope: Scope) -> State:
        """The index of the scope; raises NotFound where it has none."""
        state = await find(self._index, scope)
        if state is None:
            raise no_collection(scope)
        return state

    async def put(self, scope: Scope, spec: IndexSpec) -> State:
        """Make the index or change its settings.

        Raises InvalidArgument for a field of the metadata that has the name of a built-in one, and, where there are
        chunks, FailedPrecondition for another encoder (ENCODER_MISMATCH) or language (COLLECTION_NOT_EMPTY).
        """
        for place, name in enumerate(spec.fields):
            if name in BUILT_IN:
                raise invalid(f"spec.filterable_fields[{place}].field", f"{name} is a field of every chunk")
        return await self._turns.take(_key(scope), lambda: self._put(scope, spec))

    async def _put(self, scope: Scope, spec: IndexSpec) -> State:
        old = await find(self._index, scope)
        if old and not _searchable(old.spec, spec) and await self._index.count(stored(scope, old.chunks), old.spec):
            _refuse_change(old.spec, spec)
        # Chunks under a name of their own: whatever an index of the same name left behind does not turn up in this one.
        state = replace(old, spec=spec) if old else State(spec, _next_version(0), chunks=secrets.token_hex(12))
        await self._index.save(scope, state)
        return state

    async def drop(self, scope: Scope) -> int:
        """Delete the index, if there is one, and say how many chunks went with it."""
        return await self._turns.take(_key(scope), lambda: self._drop(scope))

    async def _drop(self, scope: Scope) -> int:
        state = await find(self._index, scope)
        if state is None:
            return 0
        state = await self._clean(scope, state)
        # The chunks first: nobody would find any left behind.
        deleted = await self._index.delete(stored(scope, state.chunks), state.spec)
        await self._index.forget(scope)
        return deleted

    async def switch(self, scope: Scope, target: Scope, expected_version: int) -> State:
        """Put the target's index in the place of the scope's, whose chunks are deleted when nobody reads them.

        Raises NotFound where either has none, InvalidArgument where they are one, Aborted (ETAG_MISMATCH) where the
        scope's index has another version than expected (0 for any).
        """
        if scope == target:
            raise invalid("target", "is the collection itself")
        # In one order, so that two switches never wait for each other.
        first, second = sorted((_key(scope), _key(target)))
        switch = partial(self._switch, scope, target, expected_version)
        return await self._turns.take(first, partial(self._turns.take, second, switch))

    async def _switch(self, scope: Scope, target: Scope, expected_version: int) -> State:
        old = await self._clean(scope, await self.get(scope))
        new = await self._clean(target, await self.get(target))
        if expected_version not in (0, old.version):
            message = f"the collection's version is {old.version}, not {expected_version}"
            raise Aborted("ETAG_MISMATCH", message, metadata={"etag": str(old.version)})
        # Said first, so that from the next step on, which is the switch, `find` finds no target.
        await self._index.save(target, replace(new, successor=scope.collection))
        replaced = Replaced(old.spec, stored(scope, old.chunks).collection)
        version = _next_version(max(old.version, new.version))
        chunks = stored(target, new.chunks).collection
        state = State(new.spec, version, new.gaps, chunks, replaced)
        await self._index.save(scope, state)
        self._turns.later(_key(target), lambda: self._forget_switched(target))
        self._turns.later(_key(scope), lambda: self._clean_if_there(scope))
        return state

    async def _forget_switched(self, target: Scope) -> None:
        if await find(self._index, target) is None:
            await self._index.forget(target)

    async def _clean_if_there(self, scope: Scope) -> None:
        state = await self._index.load(scope)
        if state is not None:
            await self._clean(scope, state)

    async def _clean(self, scope: Scope, state: State) -> State:
        """Delete what a switch replaced; where that broke off, the next write does it."""
        if state.replaced is None:
            return state
        await self._readers.left(scope)
        await self._index.delete(stored(scope, state.replaced.chunks), state.replaced.spec)
        cleaned = replace(state, replaced=None)
        await self._index.save(scope, cleaned)
        return cleaned

    async def count(self, scope: Scope, state: State) -> Counts:
        """Count what the index holds; counting is slow, so a version is counted once."""
        known = self._counts.get(scope)
        if known and known[0] == state.version:
            return known[1]
        held = stored(scope, state.chunks)
        chunks = await self._index.count(held, state.spec)
        documents = await self._index.count(held, state.spec, _ordinal(Operator.EQUAL, 0))
        counts = Counts(chunks, documents)
        self._counts[scope] = (state.version, counts)
        if len(self._counts) > _MAX_COUNTS:
            self._counts.popitem(last=False)
        return counts

    async def replace_document(
        self, scope: Scope, document: str, chunks: Sequence[Chunk], vectors: Vectors | None, encoder: str = ""
    ) -> Written:
        """Put the chunks (ordinals 0 to n-1) with their vectors [n, dimension] in place of those the document had.

        Without vectors they are found by words only, until the document is put in place again with them.
        Raises NotFound where the scope has no index, FailedPrecondition (ENCODER_MISMATCH) for vectors of another
        dimension or, where that is said, another encoder.
        """
        write = Write(Content(document, chunks, vectors), encoder)
        with self._groups.waiting(scope, write):
            await self._turns.take(_key(scope), lambda: self._replace_documents(scope, write))
        return write.result()

    async def _replace_documents(self, scope: Scope, first: Write) -> None:
        """Write the document, unless it went along with another's, and with it those that wait."""
        if first.outcome is not None:
            return
        group = self._groups.group(scope, first)
        try:
            state = await self._clean(scope, await self.get(scope))
            group = [write for write in group if _acceptable(write, state.spec)]
            await self._replace_together(scope, state, group)
        except MeshError as error:
            for write in group:
                write.outcome = error

    async def _replace_together(self, scope: Scope, state: State, group: Sequence[Write]) -> None:
        contents = [write.content for write in group]
        deleted = await self._index.replace(stored(scope, state.chunks), state, contents)
        written = [len(content.chunks) for content in contents]
        moved = await self._moved(scope, state, sum(written), sum(deleted))
        for write, come, gone in zip(group, written, deleted, strict=True):
            write.outcome = Written(come, gone, moved.version)

    async def delete_document(self, scope: Scope, document: str) -> Written:
        """Delete the document's chunks; raises NotFound where the scope has no index."""
        return await self.replace_document(scope, document, [], None)

    async def delete_where(self, scope: Scope, filter: str) -> Written:
        """Delete the chunks that the filter finds; raises as `get` and `filtering.parse` do."""
        state = await self.get(scope)
        condition = parse(filter, state.spec.fields, scope.name)
        if condition is None:
            raise invalid("filter", "is empty", reason="INVALID_FILTER")
        return await self._turns.take(_key(scope), lambda: self._delete(scope, condition))

    async def _delete(self, scope: Scope, condition: Condition) -> Written:
        state = replace(await self._clean(scope, await self.get(scope)), gaps=True)
        # Known before the first chunk goes, should the rest be cut off.
        await self._index.save(scope, state)
        deleted = await self._index.delete(stored(scope, state.chunks), state.spec, condition)
        return await self._moved(scope, state, 0, deleted)

    async def _moved(self, scope: Scope, state: State, written: int, deleted: int) -> Written:
        # Also where nothing came or went: a deletion done again after a crash finds nothing, and caches go by versions.
        moved = replace(state, version=_next_version(state.version))
        await self._index.save(scope, moved)
        return Written(written, deleted, moved.version)


def _acceptable(write: Write, spec: IndexSpec) -> bool:
    """Whether the index takes the write, which has the error for its outcome if not."""
    vectors = write.content.vectors
    try:
        refuse_encoder(spec, write.encoder)
        if write.content.chunks and vectors is not None:
            refuse_dimension(spec, vectors.shape[1])
    except MeshError as error:
        write.outcome = error
    return write.outcome is None


def _next_version(version: int) -> int:
    """A greater version: by the clock, so that a collection made again under its old name repeats none."""
    return max(version + 1, time.time_ns() // 1000)


def _searchable(old: IndexSpec, new: IndexSpec) -> bool:
    """Whether chunks stored under `old` can be searched under `new`."""
    return (old.encoder, old.dimension, old.language) == (new.encoder, new.dimension, new.language)


def _refuse_change(old: IndexSpec, new: IndexSpec) -> None:
    if old.language is not new.language:
        message = f"the language of an index that has chunks stays {old.language.value}"
        raise FailedPrecondition("COLLECTION_NOT_EMPTY", message, metadata={"field": "spec.language"})
    raise encoder_mismatch(f"{old.encoder} ({old.dimension})", f"{new.encoder} ({new.dimension})")


def _ordinal(operator: Operator, ordinal: int) -> Condition:
    return Comparison(Field("ordinal", FieldType.INTEGER, in_metadata=False), operator, ordinal)


def _key(scope: Scope) -> str:
    return f"{scope.tenant}/{scope.collection}"
