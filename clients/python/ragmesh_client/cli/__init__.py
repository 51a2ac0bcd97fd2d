"""The `ragmesh` command."""

from ragmesh_client.cli.app import main

__all__ = ["main"]
