"""The real encoder, loaded once for the run."""

from pathlib import Path

import pytest

from embedder_svc import weights
from embedder_svc.conversion import convert
from embedder_svc.encoding import Encoder, LoadOptions, ModelOptions
from embedder_svc.openvino_encoder import OpenVinoEncoder
from embedder_svc.settings import Settings


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The bundled all-MiniLM-L6-v2, converted to ONNX once for this user."""
    return convert("encoder", weights.locate(weights.BUNDLED_MODEL), Settings().conversion_folder)


@pytest.fixture(scope="session")
def minilm(minilm_folder: Path) -> Encoder:
    """The bundled all-MiniLM-L6-v2 on OpenVINO in float32."""
    options = ModelOptions(str(minilm_folder), "all-MiniLM-L6-v2", LoadOptions(dtype="float32"))
    return OpenVinoEncoder.load(minilm_folder, options)
