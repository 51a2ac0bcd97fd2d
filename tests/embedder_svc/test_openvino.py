"""Models converted to ONNX, beside the same models as sentence-transformers runs them."""

import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedder_svc import openvino_model, weights
from embedder_svc.encoding import Encoder, LoadError, LoadOptions, ModelOptions, Task, Vectors
from embedder_svc.openvino_encoder import OpenVinoEncoder
from embedder_svc.openvino_model import OpenVinoModel
from embedder_svc.openvino_reranker import OpenVinoReranker
from meshkit.errors import Unavailable
from tests.embedder_svc.tiny_models import random_cross_encoder, random_encoder

TEXTS = [
    "plain WORDS",
    "Ärger mit Umläuten, naïve café",
    "检索增强生成把答案建立在文档之上",
    "emoji 😀 and a family 👩‍👩‍👧 in the middle",
    "tabs\tand\r\nlines",
    " ",
    "word " * 300,
]
TORCH = LoadOptions(device="cpu", backend="torch", dtype="float32")
EXACT = LoadOptions(dtype="float32")


def exported(kind: str, model: Path, folder: Path) -> Path:
    """The model converted in this process, which is quicker than in one of its own."""
    from embedder_svc import exporting

    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exporting.main({"kind": kind, "model": str(model), "folder": str(folder)})
    return folder


def in_torch(model: Path | str, **options: Any) -> Encoder:
    """The encoder on torch."""
    from embedder_svc.sentence_transformer_encoder import SentenceTransformerEncoder

    return SentenceTransformerEncoder.load(str(model), "m", TORCH, **options)


def cosines(one: Vectors, other: Vectors) -> Vectors:
    """Of rows of unit length."""
    return np.asarray((one * other).sum(axis=1), dtype=np.float32)


@pytest.fixture(scope="module")
def minilm_in_torch() -> Encoder:
    """The bundled model as sentence-transformers runs it."""
    return in_torch(weights.BUNDLED_MODEL)


def test_float32_agrees_with_sentence_transformers(minilm: Encoder, minilm_in_torch: Encoder) -> None:
    """Vectors, lengths, token ends and the card, for any script, for blanks and for texts that are cut."""
    for task in Task:
        assert cosines(minilm.encode(TEXTS, task), minilm_in_torch.encode(TEXTS, task)).min() > 0.9999
        assert minilm.lengths(TEXTS, task) == minilm_in_torch.lengths(TEXTS, task)
    assert minilm.char_ends(TEXTS) == minilm_in_torch.char_ends(TEXTS)
    assert replace(minilm.card, name="m", backend="torch-cpu") == minilm_in_torch.card


def test_the_fastest_that_the_cpu_computes_in_is_near(minilm: Encoder, minilm_folder: Path) -> None:
    """With `auto`, bfloat16 or not: vectors near those in float32, whatever the company, and of one revision."""
    encoder = OpenVinoEncoder.load(minilm_folder, ModelOptions(str(minilm_folder), "m"))
    rows = encoder.encode(TEXTS, Task.DOCUMENT)
    assert cosines(rows, minilm.encode(TEXTS, Task.DOCUMENT)).min() > 0.999
    alone = np.concatenate([encoder.encode([text], Task.DOCUMENT) for text in TEXTS])
    assert cosines(rows, alone).min() > 0.999
    assert encoder.card.revision == minilm.card.revision


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "cls"},
        {"pooling": "max"},
        {"pooling": "mean_sqrt_len_tokens"},
        {"pooling": "weightedmean"},
        {"pooling": "lasttoken"},
        {"pooling": ("cls", "mean"), "dense": 24},
        {"prompts": {"query": "find this: ", "document": "text: "}},
    ],
    ids=str,
)
def test_what_makes_a_vector_of_tokens_is_converted_too(options: dict[str, Any], tmp_path: Path) -> None:
    """Each way of pooling, layers behind it, and prompts by task, whatever the lengths in a batch."""
    model = random_encoder(tmp_path, **options)
    encoder = OpenVinoEncoder.load(exported("encoder", model, tmp_path / "onnx"), ModelOptions(str(model), "m", EXACT))
    reference = in_torch(model)
    for task in Task:
        assert cosines(encoder.encode(TEXTS, task), reference.encode(TEXTS, task)).min() > 0.9999
    assert replace(encoder.card, backend="torch-cpu") == reference.card


def test_settings_go_before_what_the_model_says(minilm_folder: Path) -> None:
    """The limit, a prompt and the Matryoshka dimensions; a prompt counts towards a text's tokens."""
    options = ModelOptions(
        str(minilm_folder),
        "m",
        LoadOptions(dtype="float32", max_tokens=16),
        {Task.QUERY: "query: "},
        matryoshka_dimensions=(64, 128),
    )
    encoder = OpenVinoEncoder.load(minilm_folder, options)
    assert (encoder.card.max_tokens, encoder.card.matryoshka_dimensions) == (16, (64, 128))
    assert [encoder.lengths(["cat"], task)[0].tokens for task in (Task.DOCUMENT, Task.QUERY)] == [3, 5]
    assert encoder.lengths(["cat " * 20], Task.DOCUMENT)[0].truncated
    cut, whole = encoder.encode(["cat " * 14, "cat " * 20], Task.DOCUMENT)
    assert np.allclose(cut, whole, atol=1e-5)
    assert np.allclose(encoder.encode(["cat"], Task.QUERY), encoder.encode(["query: cat"], Task.DOCUMENT), atol=1e-5)


@pytest.mark.parametrize("activation", ["Sigmoid", "Identity"])
def test_a_cross_encoder_scores_as_in_sentence_transformers(activation: str, tmp_path: Path) -> None:
    """Its own activation included, for pairs of any length."""
    import torch
    from sentence_transformers import CrossEncoder

    plain = random_cross_encoder(tmp_path / "plain")
    CrossEncoder(str(plain), device="cpu", activation_fn=getattr(torch.nn, activation)()).save(str(tmp_path / "model"))
    folder = exported("reranker", tmp_path / "model", tmp_path / "onnx")
    reranker = OpenVinoReranker.load(folder, ModelOptions(str(folder), "m", EXACT))
    pairs = [("which one", text) for text in TEXTS]
    scores = CrossEncoder(str(tmp_path / "model"), device="cpu").predict(pairs)
    assert np.allclose(reranker.score(pairs), scores, atol=1e-4)
    assert reranker.lengths("which one", ["cat"])[0].tokens == 6


def test_a_folder_of_another_kind_is_refused(minilm_folder: Path) -> None:
    """An encoder is no reranker."""
    with pytest.raises(LoadError, match="holds a converted encoder, not reranker"):
        OpenVinoReranker.load(minilm_folder, ModelOptions(str(minilm_folder), "m"))


def test_a_model_that_fails_is_unavailable(minilm_folder: Path) -> None:
    """What OpenVINO raises ends at the adapter: here for tensors that the model needs and does not get."""
    model = openvino_model.load(minilm_folder, "encoder", LoadOptions())
    broken = OpenVinoModel(replace(model.manifest, inputs=("input_ids",)), model._cutting, model._request)
    with pytest.raises(Unavailable, match="ENGINE_UNAVAILABLE"):
        broken.run(["short", "somewhat longer"])


_PROGRAM = """
import sys
from pathlib import Path
from embedder_svc.encoding import LoadOptions, ModelOptions, Task
from embedder_svc.loading import load_encoder

encoder = load_encoder(ModelOptions(sys.argv[1], "m", LoadOptions(device="cpu", backend="openvino")))
assert encoder.encode(["text"], Task.QUERY).shape == (1, 384)
heavy = {"onnx", "openvino_telemetry", "sentence_transformers", "torch", "transformers"}
sys.exit(f"loaded: {heavy & set(sys.modules)}" if heavy & set(sys.modules) else 0)
"""


def test_encoding_needs_neither_torch_nor_transformers(minilm_folder: Path) -> None:
    """A converted model is loaded and runs without the libraries that it was converted with."""
    command = [sys.executable, "-c", _PROGRAM, str(minilm_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
