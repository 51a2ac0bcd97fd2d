"""What the adapters to the models of sentence-transformers share: loading them, and the device's failures."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from transformers.utils import logging as transformers_logging

from embedder_svc import weights
from embedder_svc.encoding import LoadError, LoadOptions
from embedder_svc.fast_tokenizer import FastTokenizer
from meshkit.errors import MeshError, ResourceExhausted, Unavailable, map_exceptions

Model = TypeVar("Model")

_RETRY_AFTER_S = 1.0


def load(kind: Callable[..., Model], model: str, options: LoadOptions) -> Model:
    """The model, of a class of sentence-transformers, its limit lowered to `max_tokens`; raises LoadError."""
    _log_as_we_do()
    if options.threads:
        torch.set_num_threads(options.threads)
    folder = weights.locate(model, download=options.download)
    device = _device(options.device)
    dtype = "float32" if (device, options.dtype) == ("cpu", "auto") else options.dtype
    try:
        loaded: Any = kind(str(folder), device=device, local_files_only=True, model_kwargs={"dtype": dtype})
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise LoadError(f"{model}: {error}") from error
    loaded.max_seq_length = min(loaded.max_seq_length or options.max_tokens, options.max_tokens)
    return loaded  # type: ignore[no-any-return]


def _device(asked: str) -> str:
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return asked


def _log_as_we_do() -> None:
    """Without a handler and progress bars of its own, transformers logs like everything else here."""
    transformers_logging.disable_progress_bar()
    transformers_logging.disable_default_handler()
    transformers_logging.enable_propagation()


def tokenizer(model: Any) -> FastTokenizer:
    """A copy of the model's tokenizer; raises LoadError where it is not one of the tokenizers library."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise LoadError("the model has no fast tokenizer")
    return FastTokenizer(backend, model.max_seq_length)


def backend(model: Any) -> str:
    """What runs the model: `torch-cpu`, `torch-cuda`."""
    return f"torch-{model.device.type}"


@contextmanager
def device_errors() -> Iterator[None]:
    """Turn torch's exceptions into members of the tree."""
    with map_exceptions({torch.OutOfMemoryError: _out_of_memory, RuntimeError: _failed}):
        yield


def _out_of_memory(_: Exception) -> MeshError:
    return ResourceExhausted("OVERLOADED", "the device's memory is full", retry_after_s=_RETRY_AFTER_S)


def _failed(_: Exception) -> MeshError:
    return Unavailable("ENGINE_UNAVAILABLE", "the model's device failed")
