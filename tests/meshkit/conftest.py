"""The stubs of probe.proto, compiled for the run."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from grpc_tools import protoc

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The stubs of probe.proto: its messages and its service's classes in one namespace."""
    folder = tmp_path_factory.mktemp("probe")
    well_known = Path(protoc.__file__).parent / "_proto"
    includes = [f"-I{path}" for path in (Path(__file__).parent, ROOT / "protos" / "third_party", well_known)]
    outputs = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    assert protoc.main(["protoc", *includes, *outputs, "probe.proto"]) == 0
    sys.path.insert(0, str(folder))
    try:
        modules = [importlib.import_module(name) for name in ("probe_pb2", "probe_pb2_grpc")]
        yield SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})
    finally:
        sys.path.remove(str(folder))
