"""What each service loads when it starts: only its own drivers, so that a node needs only its own extra."""

import json
import subprocess
import sys

import pytest

HEAVY = [
    "lancedb",
    "milvus_lite",
    "openvino",
    "pymilvus",
    "redis",
    "sentence_transformers",
    "torch",
    "transformers",
    "vllm",
]
LOADED = {
    "gateway": ["redis"],
    "retriever_svc": [],  # its index's driver comes with its index
    "generator_svc": [],
    "embedder_svc": [],  # its model's library comes with its model
    "ingest_svc": ["redis"],
    "ragmesh_client": [],
}
_PROGRAM = "import importlib, json, sys; importlib.import_module(sys.argv[1]); print(json.dumps(list(sys.modules)))"


@pytest.mark.parametrize("package", LOADED)
def test_a_service_loads_its_own_drivers_only(package: str) -> None:
    """Importing the wiring of a service loads no driver of another's, and no library that can wait."""
    wiring = f"{package}.cli" if package == "ragmesh_client" else f"{package}.app"
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, wiring], capture_output=True, text=True, timeout=50, check=True
    )
    modules = json.loads(done.stdout)
    assert [name for name in HEAVY if name in modules] == LOADED[package]
    if package == "ragmesh_client":
        assert "meshkit" not in modules
