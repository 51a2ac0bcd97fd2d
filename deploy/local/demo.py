"""The demo: sample documents in, one question asked, its answer streamed, by the command that users have."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from deploy.local.mesh import Mesh, open_mesh
from deploy.local.settings import LocalSettings, Ports

SAMPLES = Path(__file__).parents[1] / "samples"
QUESTION = "What do I have to do if I lose my hardware key?"
_COLLECTION = "handbook"
_COMMAND = "import sys; from ragmesh_client.cli import main; sys.argv[0] = 'ragmesh'; main()"


async def run(settings: LocalSettings, say: Callable[[str], None]) -> int:
    """Run the demo on a mesh of its own, on free ports, and stop the mesh; returns the exit code."""
    own = settings.model_copy(update={"data_dir": settings.data_dir / "demo", "ports": Ports.free()})
    async with open_mesh(own, say) as mesh:
        for arguments in (
            ["ingest", str(SAMPLES), "--collection", _COLLECTION],
            ["ask", QUESTION, "--collection", _COLLECTION],
        ):
            say("\n$ ragmesh " + " ".join(f'"{word}"' if " " in word else word for word in arguments))
            if code := await _ragmesh(mesh, arguments):
                return code
        say("")
    return 0


async def _ragmesh(mesh: Mesh, arguments: list[str]) -> int:
    """Run the command line against the mesh, in this terminal; returns its exit code."""
    caller = {"RAGMESH_TARGET": mesh.edge, "RAGMESH_TOKEN": mesh.keys.token.read_text().strip()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _COMMAND, *arguments, env={**os.environ, **caller}
    )
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
