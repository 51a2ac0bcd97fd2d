"""The adapter to sentence-transformers, for the actors of a Ray cluster that encode by themselves."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import snapshot_download
from sentence_transformers import SentenceTransformer

from ingest_svc.catalog import EncoderCard
from ingest_svc.encoder import Vectors

_REVISION_DIGITS = 12


class SentenceTransformersEncoder:
    """Makes the vectors of documents on the device at hand; lives as long as its process. See VectorMaker."""

    def __init__(self, model: Any, card: EncoderCard) -> None:
        self.card = card
        self._model = model

    @classmethod
    def load(cls, model: str) -> "SentenceTransformersEncoder":
        """Load a model: `NAME=FOLDER`, a folder or a hub's name; blocks. Its name is the folder's where none is given.

        The revision is that of embedder_svc: the hash of the weights, equal where vectors may be compared.
        """
        name, _, place = model.rpartition("=")
        folder = Path(place) if Path(place).is_dir() else Path(snapshot_download(place))
        loaded = SentenceTransformer(str(folder))
        card = EncoderCard(
            model=name or (folder.resolve().name if Path(place).is_dir() else place),
            revision=_revision(folder),
            dimension=loaded.get_embedding_dimension() or 0,
            max_tokens=loaded.max_seq_length or 0,
        )
        return cls(loaded, card)

    async def embed(self, model: str, batches: AsyncIterator[Sequence[str]]) -> AsyncGenerator[Vectors]:  # noqa: ARG002
        async for batch in batches:
            rows = await asyncio.to_thread(self._encoded, batch)
            yield Vectors(rows.astype("<f4").tobytes(), "DATA_TYPE_FLOAT32", rows.shape[1], len(batch), self.card.name)

    def _encoded(self, texts: Sequence[str]) -> Any:
        rows = self._model.encode_document(
            list(texts), batch_size=len(texts), show_progress_bar=False, normalize_embeddings=True
        )
        return np.asarray(rows, np.float32)


def _revision(folder: Path) -> str:
    weights = sorted(folder.rglob("*.safetensors")) or sorted(folder.rglob("*.bin"))
    digest = hashlib.sha256()
    for path in weights:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:_REVISION_DIGITS]
