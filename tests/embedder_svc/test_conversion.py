"""Conversion: done once, whole or not at all, and what stands in where it cannot be done."""

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embedder_svc import conversion, converted
from embedder_svc.conversion import convert
from embedder_svc.encoding import LoadError, LoadOptions, ModelOptions, Task
from embedder_svc.loading import load_encoder, load_reranker
from tests.embedder_svc.tiny_models import random_cross_encoder, random_encoder

# Each conversion starts a process that imports torch.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random encoder."""
    return random_encoder(tmp_path_factory.mktemp("tiny"))


def test_a_model_is_converted_once(tiny: Path, tmp_path: Path) -> None:
    """Two that start at once share one conversion, later ones find it, and what is damaged is made again."""
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: convert("encoder", tiny, tmp_path), range(2))
    made = first.stat().st_ino
    assert first == second == convert("encoder", tiny, tmp_path)
    assert first.stat().st_ino == made
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".lock"]
    assert convert("encoder", first, tmp_path) == first

    graph = first / converted.GRAPH
    graph.write_bytes(graph.read_bytes()[:-1])
    assert convert("encoder", tiny, tmp_path) == first
    assert converted.read(first).kind == "encoder"


def test_another_configuration_is_another_conversion(tiny: Path, tmp_path: Path) -> None:
    """The same weights pooled in another way are not taken for those in the cache."""
    other = shutil.copytree(tiny, tmp_path / "other")
    config = other / "1_Pooling" / "config.json"
    config.write_text(config.read_text().replace('"mean"', '"cls"'))
    assert conversion._name("encoder", other) != conversion._name("encoder", tiny)


def test_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    """The model is named, with the reason, and the next start finds no half of it."""
    two = random_cross_encoder(tmp_path / "two", scores=2)
    cache = tmp_path / "cache"
    with pytest.raises(LoadError, match=r"two: .*gives 2 scores a pair"):
        convert("reranker", two, cache)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_torch_stands_in_where_auto_may_choose(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model that cannot be converted is served all the same, with a warning; forced onto openvino it is refused."""
    model = str(random_encoder(tmp_path, include_prompt=False))
    load = LoadOptions(device="cpu", dtype="float32", conversion_folder=tmp_path / "cache")
    with caplog.at_level(logging.WARNING):
        encoder = load_encoder(ModelOptions(model, "m", load))
    assert encoder.card.backend == "torch-cpu"
    assert "leaves out the prompt" in caplog.text
    forced = LoadOptions(device="cpu", backend="openvino", dtype="float32", conversion_folder=tmp_path / "cache")
    with pytest.raises(LoadError, match="leaves out the prompt"):
        load_encoder(ModelOptions(model, "m", forced))


def test_what_no_backend_can_do_is_said(tiny: Path, tmp_path: Path) -> None:
    """float16 on openvino: an error, not another precision than was asked for."""
    load = LoadOptions(device="cpu", backend="openvino", dtype="float16", conversion_folder=tmp_path)
    with pytest.raises(LoadError, match="no backend openvino with dtype float16"):
        load_encoder(ModelOptions(str(tiny), "m", load))


def test_torch_runs_what_is_asked_of_it(tiny: Path, tmp_path: Path) -> None:
    """In half precision on a CPU too, and without converting anything."""
    load = LoadOptions(device="cpu", dtype="float16", conversion_folder=tmp_path / "cache")
    encoder = load_encoder(ModelOptions(str(tiny), "m", load))
    assert encoder.card.backend == "torch-cpu"
    assert encoder.encode(["text"], Task.QUERY).shape == (1, 32)
    reranker = load_reranker(ModelOptions(str(random_cross_encoder(tmp_path / "pairs")), "m", load))
    assert reranker.card.backend == "torch-cpu"
    assert not load.conversion_folder.exists()
