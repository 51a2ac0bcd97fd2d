"""The generator with vLLM on a tiny model: one process, started once for all tests that leave it alive."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from ragmesh.generator.v1 import generator_pb2_grpc
from tests import tiny_model
from tests.generator_svc.serving import calling
from tests.generator_svc.vllm_process import VllmProcess, vllm_process

Stub: TypeAlias = generator_pb2_grpc.GeneratorServiceStub


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model."""
    return tiny_model.make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmProcess]:
    """The process."""
    with vllm_process(model, tmp_path_factory.mktemp("vllm")) as process:
        yield process


@pytest.fixture
async def stub(server: VllmProcess) -> AsyncIterator[Stub]:
    """A stub whose calls act for ALICE."""
    async with calling(server.target) as stub:
        yield stub
