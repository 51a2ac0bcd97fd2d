"""Moves collections from one index to another, while no retriever runs on either.

    python -m retriever_svc.move --from milvus:data/milvus.db --to lance:data/index

It may be run again at any time: what is there already is only verified. What it copied from stays as it was.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from meshkit.errors import MeshError
from retriever_svc.index import Index, Scope
from retriever_svc.moving import move
from retriever_svc.opening import folder_of, open_index
from retriever_svc.settings import Settings


async def run(source: str, target: str, names: Sequence[str], settings: Settings) -> int:
    """Move the collections, `{tenant}/{collection}`, or all where none is named; how many could not be moved.

    Raises OSError where a folder cannot be had, or the source's is missing, Unavailable where a server does not answer.
    """
    if (folder := folder_of(source)) and not folder.exists():
        raise FileNotFoundError(f"there is no index in {folder}")
    async with open_index(source, settings) as old, open_index(target, settings) as new:
        scopes = [Scope(*name.split("/", 1)) for name in names] or sorted(await old.scopes(), key=_name)
        failed = [scope for scope in scopes if not await _moved(scope, old, new)]
        print(f"{len(scopes) - len(failed)} of {len(scopes)} collections are in {target}")
        return len(failed)


async def _moved(scope: Scope, source: Index, target: Index) -> bool:
    try:
        moved = await move(scope, source, target)
    except MeshError as error:
        print(f"{_name(scope)}: {error}")
        return False
    print(f"{_name(scope)}: {moved.chunks} chunks{', there before' if moved.before else ''}")
    return True


def _name(scope: Scope) -> str:
    return f"{scope.tenant}/{scope.collection}"


def _full_name(given: str) -> str:
    """The name as it is; raises ArgumentTypeError for one that is not whole."""
    tenant, _, collection = given.partition("/")
    if not tenant or not collection or "/" in collection:
        raise argparse.ArgumentTypeError(f"{given!r} is no TENANT/COLLECTION")
    return given


def main() -> None:
    """The command; ends with 1 where something could not be moved."""
    parser = argparse.ArgumentParser(
        prog="python -m retriever_svc.move", description="Move collections between indexes."
    )
    parser.add_argument(
        "--from", dest="source", required=True, help="lance:FOLDER, milvus:FOLDER or http(s)://host:port"
    )
    parser.add_argument("--to", dest="target", required=True, help="the same")
    parser.add_argument(
        "--collection", type=_full_name, action="append", default=[], help="TENANT/COLLECTION; all without"
    )
    given = parser.parse_args()
    try:
        failed = asyncio.run(run(given.source, given.target, given.collection, Settings()))
    except (MeshError, OSError) as error:
        sys.exit(str(error))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
