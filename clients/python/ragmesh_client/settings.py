"""Where the mesh is and who calls it: given, from the environment, or of the mesh in this folder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_TARGET = "127.0.0.1:8080"
LOCAL_STATE = Path("data/mesh.json")


@dataclass(frozen=True)
class Access:
    """An address and a token; the token is empty where none is known."""

    target: str
    token: str


def find_access(target: str | None, token: str | None) -> Access:
    """What is given first, then RAGMESH_TARGET and RAGMESH_TOKEN, then `data/mesh.json` of a local mesh."""
    local = _local_mesh()
    return Access(
        target=target or os.environ.get("RAGMESH_TARGET") or local.target,
        token=token or os.environ.get("RAGMESH_TOKEN") or local.token,
    )


def _local_mesh() -> Access:
    try:
        state = json.loads(LOCAL_STATE.read_text())
        return Access(state["edge"], Path(state["token_file"]).read_text().strip())
    except (OSError, ValueError, KeyError):
        return Access(DEFAULT_TARGET, "")
