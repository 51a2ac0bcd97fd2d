"""What the adapters to ONNX Runtime share: opening a converted model, running it, and the device's failures."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors
from tokenizers import Encoding, Tokenizer

from embedder_svc import converted
from embedder_svc.converted import Manifest
from embedder_svc.encoding import LoadError, LoadOptions, Vectors
from embedder_svc.fast_tokenizer import FastTokenizer
from meshkit.errors import MeshError, Unavailable, map_exceptions

BACKEND = "onnx-cpu"


class OnnxModel:
    """A converted model in memory; lives as long as its process, nothing to close.

    `run` is for one thread at a time; `tokenizer`, which counts, may be used beside it.
    """

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, session: onnxruntime.InferenceSession) -> None:
        self.manifest = manifest
        self.tokenizer = FastTokenizer(tokenizer, manifest.max_tokens)
        self._cutting = tokenizer
        self._session = session

    def run(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> Vectors:
        """What the graph gives for each text or pair, in order; raises MeshError where it fails."""
        encodings = self._cutting.encode_batch_fast(list(texts))
        with _device_errors():
            return np.asarray(self._session.run(None, self._tensors(encodings))[0], dtype=np.float32)

    def _tensors(self, encodings: Sequence[Encoding]) -> dict[str, np.ndarray]:
        """Padded on the right, which is what was verified when the model was converted."""
        shape = len(encodings), max(len(encoding) for encoding in encodings)
        pads = {"input_ids": self.manifest.pad_id, "token_type_ids": self.manifest.pad_type_id, "attention_mask": 0}
        tensors = {name: np.full(shape, pads[name], dtype=np.int64) for name in self.manifest.inputs}
        for row, encoding in enumerate(encodings):
            values = {
                "input_ids": encoding.ids,
                "token_type_ids": encoding.type_ids,
                "attention_mask": encoding.attention_mask,
            }
            for name, tensor in tensors.items():
                tensor[row, : len(encoding)] = values[name]
        return tensors


def load(folder: Path, kind: str, options: LoadOptions) -> OnnxModel:
    """The converted model, its limit lowered to `max_tokens`; raises LoadError."""
    try:
        manifest = converted.read(folder)
        tokenizer = Tokenizer.from_file(str(folder / converted.TOKENIZER))
        session = _session(folder / converted.GRAPH, options.threads)
    except (converted.Corrupt, *_FAILURES) as error:
        raise LoadError(f"{folder}: {error}") from error
    if manifest.kind != kind:
        raise LoadError(f"{folder}: holds a converted {manifest.kind}, not {kind}")
    return OnnxModel(_limited(manifest, tokenizer, options.max_tokens), tokenizer, session)


def _limited(manifest: Manifest, tokenizer: Tokenizer, max_tokens: int) -> Manifest:
    limit = min(manifest.max_tokens, max_tokens)
    direction = (tokenizer.truncation or {}).get("direction", "right")
    tokenizer.enable_truncation(limit, direction=direction)
    tokenizer.no_padding()
    return Manifest(**{**converted.fields(manifest), "max_tokens": limit})  # type: ignore[arg-type]


def _session(graph: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # A number of ours: with its own choice the threads are pinned to cores, which other services share.
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    # Threads that wait by spinning take the cores from the other services.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


# Each has Exception alone as its parent; the last is what C++ throws of itself.
_FAILURES = (
    onnx_errors.Fail,
    onnx_errors.InvalidArgument,
    onnx_errors.InvalidGraph,
    onnx_errors.InvalidProtobuf,
    onnx_errors.NoSuchFile,
    onnx_errors.NotImplemented,
    onnx_errors.RuntimeException,
    RuntimeError,
)


@contextmanager
def _device_errors() -> Iterator[None]:
    """Turn ONNX Runtime's exceptions into members of the tree."""
    with map_exceptions(dict.fromkeys(_FAILURES, _failed)):
        yield


def _failed(_: Exception) -> MeshError:
    return Unavailable("ENGINE_UNAVAILABLE", "the model's device failed")
