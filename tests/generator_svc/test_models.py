"""The models in deploy/models, as far as they can be checked without their weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from generator_svc.settings import Settings
from generator_svc.vllm_arguments import VllmOptions, engine_arguments
from generator_svc.vllm_lora import lora_arguments

FILES = sorted((Path(__file__).parents[2] / "deploy" / "models").glob("*.yaml"))

# vLLM's own imports warn of its drivers' deprecations.
pytestmark = [pytest.mark.timeout(240), pytest.mark.filterwarnings("ignore")]


def test_there_are_models() -> None:
    """Else the tests below would show nothing."""
    assert len(FILES) >= 5


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_models_file_is_what_vllm_takes(file: Path) -> None:
    """VLLM's own command line takes each argument with its value, and the arguments make its AsyncEngineArgs."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    settings = Settings(model=str(file))
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser(exit_on_error=False))
    parser.parse_args([word for name, value in settings.engine_args.items() for word in _option(name, value)])

    options = VllmOptions(**{option.name: getattr(settings, option.name) for option in dataclasses.fields(VllmOptions)})
    arguments = engine_arguments(options)

    assert arguments.model == settings.model != str(file)
    assert arguments.served_model_name == settings.model_name
    assert arguments.max_num_seqs == settings.max_running
    assert arguments.max_model_len == settings.max_model_tokens
    assert arguments.enable_prefix_caching
    assert arguments.enable_lora == bool(settings.lora_adapters)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_speculative_config_is_one(file: Path) -> None:
    """Its keys are those of vLLM's SpeculativeConfig."""
    from vllm.config import SpeculativeConfig

    given = Settings(model=str(file)).engine_args.get("speculative_config", {})

    assert given.keys() <= {field.name for field in dataclasses.fields(SpeculativeConfig)}


def test_an_argument_that_vllm_does_not_know_is_named() -> None:
    """At the start, before anything is loaded."""
    options = VllmOptions("m", "m", 1, engine_args={"max_num_sequences": 4, "tensor_parallel_size": 2})

    with pytest.raises(ValueError, match="of this name: max_num_sequences"):
        engine_arguments(options)


def test_places_and_rank_follow_from_the_adapters(tmp_path: Path) -> None:
    """The least rank that fits all, and one place more than adapters on this CPU; what is given wins."""
    for name, rank in (("a", 4), ("b", 12)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"r": rank}))
    adapters = {name: str(tmp_path / name) for name in ("a", "b")}

    derived = engine_arguments(VllmOptions("m", "m", 1, lora_adapters=adapters))
    given = engine_arguments(
        VllmOptions("m", "m", 1, lora_adapters=adapters, engine_args={"max_loras": 5, "max_lora_rank": 64})
    )
    many = engine_arguments(VllmOptions("m", "m", 1, lora_adapters={f"a{i}": "hub/name" for i in range(12)}))

    assert (derived.enable_lora, derived.max_loras, derived.max_cpu_loras, derived.max_lora_rank) == (True, 3, 3, 16)
    assert (given.max_loras, given.max_cpu_loras, given.max_lora_rank) == (5, 5, 64)
    assert (many.max_loras, many.max_cpu_loras, many.max_lora_rank) == (13, 13, 16)


def test_a_gpu_has_no_more_places_than_eight() -> None:
    """As many as adapters below that, and as few as are given."""
    adapters = {f"a{i}": "hub/name" for i in range(12)}

    many = lora_arguments(adapters, {}, on_cpu=False)
    given = lora_arguments(adapters, {"max_loras": 1}, on_cpu=False)

    assert (many["max_loras"], many["max_cpu_loras"]) == (8, 12)
    assert (given["max_loras"], given["max_cpu_loras"]) == (1, 12)


def test_a_cpu_without_a_free_place_for_adapters_is_refused() -> None:
    """The last place's adapter would be applied to streams that asked for none."""
    options = VllmOptions("m", "m", 1, lora_adapters={"a": "hub/a", "b": "hub/b"}, engine_args={"max_loras": 2})

    with pytest.raises(ValueError, match="max_loras is 2: on a CPU, 2 lora_adapters need 3"):
        engine_arguments(options)


def _option(name: str, value: Any) -> list[str]:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", json.dumps(value) if isinstance(value, dict | list) else str(value)]
