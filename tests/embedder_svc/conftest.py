"""The real encoder, loaded once for the run."""

import pytest

from embedder_svc.encoding import Encoder, LoadOptions


@pytest.fixture(scope="session")
def minilm() -> Encoder:
    """The bundled all-MiniLM-L6-v2."""
    from embedder_svc.sentence_transformer_encoder import SentenceTransformerEncoder

    return SentenceTransformerEncoder.load("all-MiniLM-L6-v2", "all-MiniLM-L6-v2", LoadOptions(device="cpu"))
