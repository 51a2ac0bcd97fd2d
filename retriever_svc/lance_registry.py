"""The states of all indexes beside LanceDB's tables: one SQLite file, which also says whose the folder is."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from retriever_svc.index import Scope, State
from retriever_svc.index_state import read_state, write_state

_TABLE = """CREATE TABLE IF NOT EXISTS states (
    tenant TEXT NOT NULL, collection TEXT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (tenant, collection)
) WITHOUT ROWID"""


class Registry:
    """The states, all in memory, each written through before it is told; `open_registry` makes and closes it."""

    def __init__(self, connection: sqlite3.Connection, states: dict[Scope, State]) -> None:
        self._connection = connection
        self._lock = asyncio.Lock()
        # As in the file; a write changes it when the file has it.
        self._states = states

    def scopes(self) -> list[Scope]:
        """The scopes that have a state."""
        return list(self._states)

    def load(self, scope: Scope) -> State | None:
        """The scope's state, if it has one."""
        return self._states.get(scope)

    async def save(self, scope: Scope, state: State) -> None:
        """Keep the state; it is on the disk when this returns."""
        row = (scope.tenant, scope.collection, json.dumps(write_state(state)))
        await self._write("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", row)
        self._states[scope] = state

    async def forget(self, scope: Scope) -> None:
        """Delete the scope's state."""
        await self._write("DELETE FROM states WHERE tenant = ? AND collection = ?", (scope.tenant, scope.collection))
        self._states.pop(scope, None)

    async def _write(self, statement: str, values: tuple[str, ...]) -> None:
        async with self._lock:
            await asyncio.to_thread(self._connection.execute, statement, values)


@asynccontextmanager
async def open_registry(path: Path) -> AsyncIterator[Registry]:
    """The registry; raises OSError where another process has it open, or the file is no registry."""
    try:
        connection, states = await asyncio.to_thread(_open, path)
    except sqlite3.Error as error:
        message = f"cannot open the index in {path.parent}: another process has it open, or it is not one ({error})"
        raise OSError(message) from error
    try:
        yield Registry(connection, states)
    finally:
        await asyncio.to_thread(connection.close)


def _open(path: Path) -> tuple[sqlite3.Connection, dict[Scope, State]]:
    # Every statement its own transaction; whose turn it is, is the registry's own matter, not a thread's.
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        # The lock is taken by the first transaction and kept until the process closes the file, or dies.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(_TABLE)
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
        rows = connection.execute("SELECT tenant, collection, state FROM states").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection, {Scope(tenant, collection): read_state(json.loads(state)) for tenant, collection, state in rows}
