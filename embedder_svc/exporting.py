"""The process that converts one model to ONNX: the only place where torch and the converter meet."""

import json
import logging
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from tokenizers import Tokenizer

from embedder_svc import converted, openvino_model, weights
from embedder_svc.converted import Manifest
from embedder_svc.cross_encoder_reranker import CrossEncoderReranker
from embedder_svc.encoding import Encoder, LoadError, LoadOptions, Reranker, Task, Vectors
from embedder_svc.sentence_transformer_encoder import SentenceTransformerEncoder

_OPSET = 17
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# A protobuf message holds 2 GiB; beyond this the weights lie beside the graph.
_LARGE_BYTES = 1_800_000_000
# The least cosine, or the greatest difference of scores, between the model and what it was converted to.
_LEAST_COSINE = 0.9999
_GREATEST_DIFFERENCE = 1e-3

# Of many lengths, scripts and cases, so that padding, lower-casing and unknown characters show.
_SAMPLE = [
    "A short one",
    "Kubernetes RESTARTS a pod that fails its liveness probe; how often depends on the back-off.",
    "检索增强生成把答案建立在文档之上。",
    "emoji 😀, naïve café, tabs\tand  spaces",
    " ".join(["Each word of this long text counts, whatever its company."] * 12),
]


class _Graph(torch.nn.Module):  # type: ignore[misc]
    """The model as a function of its tensors alone: rows of an encoder, or scores of a cross-encoder."""

    def __init__(self, model: Any, inputs: Sequence[str], output: Callable[[Mapping[str, Any]], Any]) -> None:
        super().__init__()
        self.model = model
        self._inputs = inputs
        self._output = output

    def forward(self, *tensors: Any) -> Any:
        return self._output(self.model(dict(zip(self._inputs, tensors, strict=True))))


@dataclass(frozen=True, slots=True)
class _Source:
    """A model that sentence-transformers has loaded, what to export of it, and how it judges a conversion."""

    model: Any
    manifest: Manifest
    output: Callable[[Mapping[str, Any]], Any]
    difference: Callable[[openvino_model.OpenVinoModel], float]
    tolerance: float


def main(order: Mapping[str, str]) -> None:
    """Convert `model` of `kind` into the empty `folder`; raises LoadError where it cannot be."""
    folder = Path(order["folder"])
    source = (_encoder if order["kind"] == "encoder" else _reranker)(Path(order["model"]))
    _save_tokenizer(source, folder)
    with TemporaryDirectory(dir=folder) as scratch:
        graph = Path(scratch, "exported.onnx")
        _export(source, graph)
        # In one file, or in two where it is large, whatever the exporter made of it.
        onnx.save_model(onnx.load(graph), folder / converted.GRAPH, save_as_external_data=_is_large(source))
    converted.write(folder, converted.fields(source.manifest))
    difference = source.difference(openvino_model.load(folder, source.manifest.kind, LoadOptions(dtype="float32")))
    if difference > source.tolerance:
        raise LoadError(f"it differs by {difference:.1e} from the model")


def _encoder(model: Path) -> _Source:
    encoder = SentenceTransformerEncoder.load(str(model), model.name, LoadOptions(device="cpu", dtype="float32"))
    loaded = encoder._model  # noqa: SLF001 - the conversion is of what the adapter holds
    if any(getattr(module, "include_prompt", True) is False for module in loaded):
        raise LoadError("its pooling leaves out the prompt")
    card, prompts = encoder.card, {task.value: encoder._prompts[task] for task in Task}  # noqa: SLF001
    manifest = Manifest(
        kind="encoder",
        revision=weights.revision(model),
        max_tokens=card.max_tokens,
        dimension=card.dimension,
        matryoshka_dimensions=card.matryoshka_dimensions,
        prompts=prompts,
        **_tensors(loaded, loaded.preprocess(_SAMPLE)),
    )

    def difference(graph: openvino_model.OpenVinoModel) -> float:
        return max(1 - float(cosine) for task in Task for cosine in _cosines(encoder, graph, task, prompts[task.value]))

    return _Source(loaded, manifest, lambda features: features["sentence_embedding"], difference, 1 - _LEAST_COSINE)


def _cosines(encoder: Encoder, graph: openvino_model.OpenVinoModel, task: Task, prompt: str) -> Vectors:
    rows = graph.run([prompt + text for text in _SAMPLE])
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray((unit * encoder.encode(_SAMPLE, task)).sum(axis=1), dtype=np.float32)


def _reranker(model: Path) -> _Source:
    reranker: Reranker = CrossEncoderReranker.load(str(model), model.name, LoadOptions(device="cpu", dtype="float32"))
    loaded = reranker._model  # type: ignore[attr-defined]  # noqa: SLF001 - as above
    pairs = [(_SAMPLE[0], text) for text in _SAMPLE]
    manifest = Manifest(
        kind="reranker",
        revision=weights.revision(model),
        max_tokens=reranker.card.max_tokens,
        **_tensors(loaded, loaded.preprocess(pairs)),
    )

    def difference(graph: openvino_model.OpenVinoModel) -> float:
        return float(np.abs(graph.run(pairs) - reranker.score(pairs)).max())

    def scores(features: Mapping[str, Any]) -> Any:
        return loaded.activation_fn(features["scores"])[:, 0]

    return _Source(loaded, manifest, scores, difference, _GREATEST_DIFFERENCE)


def _tensors(loaded: Any, features: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's part about the graph's tensors; raises LoadError for models of other things than tokens."""
    inputs = tuple(name for name in _INPUTS if name in features)
    strange = [name for name, value in features.items() if isinstance(value, torch.Tensor) and name not in inputs]
    if strange or "input_ids" not in inputs:
        raise LoadError(f"takes {', '.join(strange) or 'no tokens'}")
    tokenizer = loaded.tokenizer
    return {"inputs": inputs, "pad_id": tokenizer.pad_token_id or 0, "pad_type_id": tokenizer.pad_token_type_id}


def _save_tokenizer(source: _Source, folder: Path) -> None:
    """With truncation on the model's side, for the runtime to lower; padding is the runtime's own."""
    tokenizer = Tokenizer.from_str(source.model.tokenizer.backend_tokenizer.to_str())
    tokenizer.enable_truncation(source.manifest.max_tokens, direction=source.model.tokenizer.truncation_side)
    tokenizer.no_padding()
    tokenizer.save(str(folder / converted.TOKENIZER))


def _export(source: _Source, graph: Path) -> None:
    """With torch's tracing exporter, whose graphs keep both axes free."""
    inputs = source.manifest.inputs
    tensors = tuple(torch.ones((2, 8), dtype=torch.int64) for _ in inputs)
    axes = {name: {0: "batch", 1: "length"} for name in inputs} | {"output": {0: "batch"}}
    with torch.inference_mode():
        torch.onnx.export(
            _Graph(source.model, inputs, source.output).eval(),
            tensors,
            str(graph),
            input_names=list(inputs),
            output_names=["output"],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )


def _is_large(source: _Source) -> bool:
    return bool(sum(parameter.nbytes for parameter in source.model.parameters()) > _LARGE_BYTES)


if __name__ == "__main__":
    # What the libraries say of themselves is not for whoever waits; only a failure's last line is.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    main(json.loads(sys.argv[1]))
