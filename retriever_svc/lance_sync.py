"""Making what LanceDB wrote outlive the machine: it writes new files and renames them, and leaves them to the system.

A process that dies loses nothing by that, a machine that loses its power might.
"""

import os
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# What no reader of the newest version needs: where that may be, and how it differs from the one before.
_SPARE = ("latest_version_hint.json", ".txn")
_AT_ONCE = 16


def files(folder: Path) -> frozenset[str]:
    """The files below the folder that never change once they are there."""
    return frozenset(os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)  # noqa: PTH118


def sync(folder: Path, known: AbstractSet[str]) -> frozenset[str]:
    """Bring to the disk the files below the folder that are not known, with their folders; say which are there now."""
    there = files(folder)
    fresh = [path for path in there - known if not path.endswith(_SPARE)]
    parents = {os.path.dirname(path) for path in fresh}  # noqa: PTH120
    grown = parents - {os.path.dirname(path) for path in known}  # noqa: PTH120
    paths = [*fresh, *parents, *{os.path.dirname(parent) for parent in grown}]  # noqa: PTH120
    # The disk's journal takes those that come together in one go.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(_fsync, paths))
    return there


def _fsync(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # cleaned away meanwhile
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
