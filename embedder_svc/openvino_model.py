"""What the adapters to converted models share: opening one on OpenVINO, running it, and the device's failures."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tokenizers import Encoding, Tokenizer

from embedder_svc import converted
from embedder_svc.converted import Manifest
from embedder_svc.encoding import LoadError, LoadOptions, Vectors
from embedder_svc.fast_tokenizer import FastTokenizer
from meshkit.errors import MeshError, Unavailable, map_exceptions

# OpenVINO's converter, which nothing here uses, reports each import to its maker: it is imported as if it were missing.
sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]

import openvino  # noqa: E402 - after the above

BACKEND = "openvino-cpu"

_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
# OpenVINO prepares itself for each shape that it meets: with lengths in such steps it meets few, and keeps what it
# prepared for the last of them. Each of those takes a megabyte or two.
_LENGTH_STEP = 8
_PREPARED = "64"


class OpenVinoModel:
    """A converted model in memory; lives as long as its process, nothing to close.

    `run` is for one thread at a time; `tokenizer`, which counts, may be used beside it.
    """

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, request: openvino.InferRequest) -> None:
        self.manifest = manifest
        self.tokenizer = FastTokenizer(tokenizer, manifest.max_tokens)
        self._cutting = tokenizer
        self._request = request

    def run(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> Vectors:
        """What the graph gives for each text or pair, in order; raises MeshError where it fails."""
        encodings = self._cutting.encode_batch_fast(list(texts))
        with _device_errors():
            self._request.infer(self._tensors(encodings))
            # A copy: the next call writes into the same memory.
            return np.array(self._request.get_output_tensor().data, dtype=np.float32)

    def _tensors(self, encodings: Sequence[Encoding]) -> dict[str, np.ndarray]:
        """Padded on the right, which is what was verified when the model was converted."""
        longest = max(len(encoding) for encoding in encodings)
        length = min(-(-longest // _LENGTH_STEP) * _LENGTH_STEP, self.manifest.max_tokens)
        shape = len(encodings), length
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


def load(folder: Path, kind: str, options: LoadOptions) -> OpenVinoModel:
    """The converted model, its limit lowered to `max_tokens`; raises LoadError."""
    try:
        manifest = converted.read(folder)
        tokenizer = Tokenizer.from_file(str(folder / converted.TOKENIZER))
        request = _request(folder / converted.GRAPH, options)
    except (converted.Corrupt, RuntimeError) as error:
        raise LoadError(f"{folder}: {error}") from error
    if manifest.kind != kind:
        raise LoadError(f"{folder}: holds a converted {manifest.kind}, not {kind}")
    return OpenVinoModel(_limited(manifest, tokenizer, options.max_tokens), tokenizer, request)


def _limited(manifest: Manifest, tokenizer: Tokenizer, max_tokens: int) -> Manifest:
    limit = min(manifest.max_tokens, max_tokens)
    direction = (tokenizer.truncation or {}).get("direction", "right")
    tokenizer.enable_truncation(limit, direction=direction)
    tokenizer.no_padding()
    return Manifest(**{**converted.fields(manifest), "max_tokens": limit})  # type: ignore[arg-type]


def _request(graph: Path, options: LoadOptions) -> openvino.InferRequest:
    core = openvino.Core()
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": options.threads or len(os.sched_getaffinity(0)),
        # The cores are shared with the other services.
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": _PREPARED,
    }
    halves = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if options.dtype == "bfloat16" and not halves:
        raise LoadError("the CPU does not compute in bfloat16")
    if precision := _PRECISIONS.get(options.dtype):
        properties["INFERENCE_PRECISION_HINT"] = precision
    model = core.read_model(graph)
    if halves and options.dtype != "float32":
        model = _halved(core, model)
    return core.compile_model(model, "CPU", properties).create_infer_request()


def _halved(core: openvino.Core, model: openvino.Model) -> openvino.Model:
    """The model with weights of 16 bits, so that none of 32 stay in memory beside those that it computes with."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.xml")
        openvino.save_model(model, path, compress_to_fp16=True)
        # What it reads is mapped, and outlives the file.
        return core.read_model(path)


@contextmanager
def _device_errors() -> Iterator[None]:
    """Turn OpenVINO's exceptions into members of the tree."""
    with map_exceptions({RuntimeError: _failed}):
        yield


def _failed(_: Exception) -> MeshError:
    return Unavailable("ENGINE_UNAVAILABLE", "the model's device failed")
