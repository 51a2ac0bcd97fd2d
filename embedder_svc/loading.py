"""Which backend runs a model: OpenVINO on a CPU, where the model can be converted, else torch."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from embedder_svc import converted, weights
from embedder_svc.conversion import Kind, convert
from embedder_svc.encoding import Encoder, LoadError, LoadOptions, ModelOptions, Reranker

logger = logging.getLogger(__name__)

Model = TypeVar("Model")

_OPENVINO_DTYPES = {"auto", "float32", "bfloat16"}

# Importing an adapter imports its library, which takes seconds for torch: each is imported where it is chosen.


def load_encoder(options: ModelOptions) -> Encoder:
    """The encoder, loaded and warm; blocks for as long as that takes and raises LoadError."""

    def on_openvino(folder: Path) -> Encoder:
        from embedder_svc.openvino_encoder import OpenVinoEncoder

        return OpenVinoEncoder.load(folder, options)

    def torch() -> Encoder:
        from embedder_svc.sentence_transformer_encoder import SentenceTransformerEncoder

        return SentenceTransformerEncoder.load(
            options.model,
            options.name,
            options.load,
            prompts=options.prompts,
            matryoshka_dimensions=options.matryoshka_dimensions,
        )

    return _load("encoder", options, on_openvino, torch)


def load_reranker(options: ModelOptions) -> Reranker:
    """The cross-encoder, loaded and warm; blocks for as long as that takes and raises LoadError."""

    def on_openvino(folder: Path) -> Reranker:
        from embedder_svc.openvino_reranker import OpenVinoReranker

        return OpenVinoReranker.load(folder, options)

    def torch() -> Reranker:
        from embedder_svc.cross_encoder_reranker import CrossEncoderReranker

        return CrossEncoderReranker.load(options.model, options.name, options.load)

    return _load("reranker", options, on_openvino, torch)


def prepare(kind: Kind, options: ModelOptions) -> None:
    """Convert the model as a server with these options would at its first start; raises LoadError."""
    if _openvino_may(options.load):
        convert(kind, weights.locate(options.model, download=options.load.download), options.load.conversion_folder)


def _load(kind: Kind, options: ModelOptions, on_openvino: Callable[[Path], Model], torch: Callable[[], Model]) -> Model:
    """The model on the first backend that can run it; raises what the last of them raised."""
    folder = weights.locate(options.model, download=options.load.download)
    torch_may = options.load.backend != "openvino" and not converted.is_converted(folder)
    if _openvino_may(options.load):
        try:
            return on_openvino(convert(kind, folder, options.load.conversion_folder))
        except LoadError as error:
            if not torch_may:
                raise
            logger.warning("%s does not run on OpenVINO: %s", options.name, error)
    if not torch_may:
        raise LoadError(f"{options.model}: no backend {options.load.backend} with dtype {options.load.dtype} here")
    return torch()


def _openvino_may(load: LoadOptions) -> bool:
    """Whether to try it on OpenVINO: on a CPU, in what that computes in."""
    on_cpu = load.device == "cpu" or (load.device == "auto" and (load.backend == "openvino" or not _has_gpu()))
    return on_cpu and load.backend != "torch" and load.dtype in _OPENVINO_DTYPES


def _has_gpu() -> bool:
    """Whether a CUDA device is here, without the seconds that asking torch takes."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
