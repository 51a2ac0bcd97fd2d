"""Which backend runs a model: ONNX Runtime on a CPU, where the model can be converted, else torch."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from embedder_svc import converted, weights
from embedder_svc.conversion import Kind, convert
from embedder_svc.encoding import Encoder, LoadError, LoadOptions, ModelOptions, Reranker

logger = logging.getLogger(__name__)

Model = TypeVar("Model")

# Importing an adapter imports its library, which takes seconds for torch: each is imported where it is chosen.


def load_encoder(options: ModelOptions) -> Encoder:
    """The encoder, loaded and warm; blocks for as long as that takes and raises LoadError."""

    def onnx(folder: Path) -> Encoder:
        from embedder_svc.onnx_encoder import OnnxEncoder

        return OnnxEncoder.load(folder, options)

    def torch() -> Encoder:
        from embedder_svc.sentence_transformer_encoder import SentenceTransformerEncoder

        return SentenceTransformerEncoder.load(
            options.model,
            options.name,
            options.load,
            prompts=options.prompts,
            matryoshka_dimensions=options.matryoshka_dimensions,
        )

    return _load("encoder", options, onnx, torch)


def load_reranker(options: ModelOptions) -> Reranker:
    """The cross-encoder, loaded and warm; blocks for as long as that takes and raises LoadError."""

    def onnx(folder: Path) -> Reranker:
        from embedder_svc.onnx_reranker import OnnxReranker

        return OnnxReranker.load(folder, options)

    def torch() -> Reranker:
        from embedder_svc.cross_encoder_reranker import CrossEncoderReranker

        return CrossEncoderReranker.load(options.model, options.name, options.load)

    return _load("reranker", options, onnx, torch)


def prepare(kind: Kind, options: ModelOptions) -> None:
    """Convert the model as a server with these options would at its first start; raises LoadError."""
    if precisions := _precisions(options.load):
        folder = weights.locate(options.model, download=options.load.download)
        convert(kind, folder, precisions[0], options.load.conversion_folder)


def _load(kind: Kind, options: ModelOptions, onnx: Callable[[Path], Model], torch: Callable[[], Model]) -> Model:
    """The model on the first backend and precision that can run it; raises what the last of them raised."""
    folder = weights.locate(options.model, download=options.load.download)
    precisions = _precisions(options.load)
    torch_may = options.load.backend != "onnx" and options.load.dtype != "int8" and not converted.is_converted(folder)
    for place, precision in enumerate(precisions):
        try:
            return onnx(convert(kind, folder, precision, options.load.conversion_folder))
        except LoadError as error:
            if place == len(precisions) - 1 and not torch_may:
                raise
            logger.warning("%s does not run on ONNX Runtime in %s: %s", options.name, precision, error)
    if not torch_may:
        raise LoadError(f"{options.model}: no backend {options.load.backend} with dtype {options.load.dtype} here")
    return torch()


def _precisions(load: LoadOptions) -> tuple[str, ...]:
    """What to try on ONNX Runtime, best first; empty where it is not the backend."""
    on_cpu = load.device == "cpu" or (load.device == "auto" and (load.backend == "onnx" or not _has_gpu()))
    if load.backend == "torch" or not on_cpu:
        return ()
    by_dtype = {"int8": ("int8",), "float32": ("float32",)}
    if load.dtype == "auto":
        return ("int8", "float32") if _multiplies_int8() else ("float32",)
    return by_dtype.get(load.dtype, ())


def _has_gpu() -> bool:
    """Whether a CUDA device is here, without the seconds that asking torch takes."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


def _multiplies_int8() -> bool:
    """Whether the CPU has dot products of int8: without them int8 saturates, or is no faster."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return not flags.isdisjoint({"avx512_vnni", "avx_vnni", "asimddp", "i8mm"})
