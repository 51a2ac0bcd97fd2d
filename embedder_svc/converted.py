"""A converted model as a folder: a graph, its tokenizer, and what else is known of it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

MANIFEST = "converted.json"
GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"


class Corrupt(Exception):
    """A folder is not the whole of what was converted."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model says of itself: its limit in tokens, prompts by task, and the tensors that its graph takes.

    The graph gives an encoder's rows [n, dimension], pooled as the model wants and not yet of unit length, or a
    reranker's scores [n]. `digest` is the hash of the folder's other files.
    """

    kind: str
    revision: str
    max_tokens: int
    inputs: tuple[str, ...]
    pad_id: int
    pad_type_id: int
    dimension: int = 0
    matryoshka_dimensions: tuple[int, ...] = ()
    prompts: dict[str, str] = field(default_factory=dict)
    digest: str = ""


def is_converted(folder: Path) -> bool:
    """Whether this is such a folder, whole or not."""
    return (folder / MANIFEST).is_file()


def write(folder: Path, manifest: dict[str, object]) -> None:
    """Write the manifest of a folder that is otherwise whole; its digest is added."""
    (folder / MANIFEST).write_text(json.dumps({**manifest, "digest": digest(_contents(folder))}, indent=1))


def read(folder: Path) -> Manifest:
    """The manifest of a whole folder; raises Corrupt where a file is missing or is not what was written."""
    try:
        stored = json.loads((folder / MANIFEST).read_text())
        for name in ("inputs", "matryoshka_dimensions"):
            stored[name] = tuple(stored[name])
        manifest = Manifest(**stored)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Corrupt(f"{folder}: {error}") from error
    if manifest.digest != digest(_contents(folder)):
        raise Corrupt(f"{folder}: not as it was written")
    return manifest


def fields(manifest: Manifest) -> dict[str, object]:
    """The manifest as JSON has it."""
    return asdict(manifest)


def digest(files: Iterator[Path]) -> str:
    """The hash of the names and contents of files, in the order given."""
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _contents(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file() and path.name != MANIFEST)
