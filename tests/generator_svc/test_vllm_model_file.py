"""vLLM started from one YAML file: LoRA adapters by request, and speculative decoding under all of it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from meshkit.errors import InvalidArgument
from ragmesh.generator.v1 import generator_pb2
from tests.generator_svc.conftest import Stub
from tests.generator_svc.serving import calling, read, request
from tests.generator_svc.vllm_process import VllmProcess, vllm_process
from tests.lora_adapter import make_lora_adapter, merge

# The first test waits for the engine's start, which takes half a minute on a busy machine.
pytestmark = pytest.mark.timeout(240)

CONTEXT_TOKENS = 512
EXACT = 20
# Says itself again, which is what n-gram drafts live on.
PROMPT = "the Work and the Work and the Work and the"
PROMPTS = (PROMPT, "You may", "each of the terms and each of the", "a", "License and License and", "A mesh of the")
GREEDY = {"prompt": PROMPT, "max_tokens": 60, "sampling": {"temperature": 0}, "ignore_eos": True}


@pytest.fixture(scope="module")
def adapters(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters, of different ranks, by name."""
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "legal": make_lora_adapter(folder / "legal", model, rank=4, seed=1),
        "medical": make_lora_adapter(folder / "medical", model, rank=12, seed=2),
    }


@pytest.fixture(scope="module")
def server(model: Path, adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmProcess]:
    """A process whose model is a file, with adapters and drafts."""
    drafts = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
    with _serving(model, adapters, tmp_path_factory.mktemp("model-file"), speculative_config=drafts) as process:
        yield process


@pytest.fixture(scope="module")
def undrafted(
    model: Path, adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmProcess]:
    """The same without drafts."""
    with _serving(model, adapters, tmp_path_factory.mktemp("undrafted")) as process:
        yield process


@pytest.fixture
async def stub(server: VllmProcess) -> AsyncIterator[Stub]:
    """A stub whose calls act for ALICE."""
    async with calling(server.target) as stub:
        yield stub


@pytest.fixture
async def undrafted_stub(undrafted: VllmProcess) -> AsyncIterator[Stub]:
    """A stub of the process without drafts."""
    async with calling(undrafted.target) as stub:
        yield stub


async def test_the_model_says_what_its_file_says(stub: Stub) -> None:
    """The context is the file's, and the adapters are told by name."""
    (info,) = (await stub.ListModels(generator_pb2.ListModelsRequest())).models

    assert info.max_model_tokens == CONTEXT_TOKENS
    assert list(info.lora_adapters) == ["legal", "medical"]


@pytest.mark.parametrize("name", ["", "legal", "medical"])
async def test_an_adapter_is_what_merged_weights_make(
    name: str, stub: Stub, model: Path, adapters: dict[str, Path]
) -> None:
    """The likeliest tokens, drafted and with the adapter, are those of transformers with the adapter in its weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if name:
        merge(reference, adapters[name])
    tokens = AutoTokenizer.from_pretrained(model)(PROMPT, return_tensors="pt")
    reference.generation_config.eos_token_id = None
    made = reference.generate(**tokens, max_new_tokens=60, do_sample=False)

    answer = await read(stub.Generate(request(lora_adapter=name, **GREEDY)))

    expected = made[0, tokens["input_ids"].shape[1] :].tolist()
    # Merging rounds otherwise than adding: a near tie far down may fall the other way.
    assert _tokens(answer)[:EXACT] == tuple(expected[:EXACT])


async def test_adapters_do_not_mix_in_one_step(stub: Stub) -> None:
    """Streams side by side, each with its adapter or none, say what they say alone."""
    await _check_adapters_side_by_side(stub)


async def test_adapters_do_not_mix_in_one_step_without_drafts(undrafted_stub: Stub) -> None:
    """Nor there."""
    await _check_adapters_side_by_side(undrafted_stub)


async def test_drafts_of_streams_side_by_side_change_nothing(stub: Stub, undrafted_stub: Stub) -> None:
    """Each says what it says alone and undrafted."""
    requests = [request(**{**GREEDY, "prompt": prompt}) for prompt in PROMPTS]

    alone = [_tokens(await read(undrafted_stub.Generate(message)))[:EXACT] for message in requests]

    assert await _together(stub, requests) == alone


async def test_an_unknown_adapter_is_refused_with_those_there_are(stub: Stub) -> None:
    """By the field's name."""
    with pytest.raises(InvalidArgument, match="legal, medical") as caught:
        await read(stub.Generate(request(lora_adapter="poetry", **GREEDY)))

    assert (caught.value.reason, caught.value.metadata) == ("INVALID_FIELD", {"field": "lora_adapter"})


async def test_vllms_own_metrics_are_served(server: VllmProcess, stub: Stub) -> None:
    """Under their own names, for dashboards that know them: tokens drafted, prefix cache and KV cache."""
    await read(stub.Generate(request(**GREEDY)))

    figures = _figures(server)

    assert figures["vllm:spec_decode_num_draft_tokens_total"] > 0
    assert figures["vllm:prefix_cache_queries_total"] > 0
    assert figures["vllm:num_preemptions_total"] == 0
    assert 0 <= figures["vllm:kv_cache_usage_perc"] < 1


@contextmanager
def _serving(model: Path, adapters: dict[str, Path], folder: Path, **said: object) -> Iterator[VllmProcess]:
    file = folder / "tiny.yaml"
    named = {name: str(path) for name, path in adapters.items()}
    said = {"model": str(model), "max_model_len": CONTEXT_TOKENS, "lora_adapters": named, **said}
    file.write_text(yaml.safe_dump(said))
    with vllm_process(file, folder) as process:
        yield process


async def _check_adapters_side_by_side(stub: Stub) -> None:
    requests = [request(lora_adapter=name, **GREEDY) for name in ("", "legal", "medical")]
    alone = [_tokens(await read(stub.Generate(message)))[:EXACT] for message in requests]

    # Sums over a batch round otherwise: a near tie far down may fall the other way.
    assert await _together(stub, requests * 2) == alone * 2
    assert len(set(alone)) == len(alone)


async def _together(stub: Stub, requests: list[generator_pb2.GenerateRequest]) -> list[tuple[int, ...]]:
    calls = [stub.Generate(message) for message in requests]
    return [_tokens(await read(call))[:EXACT] for call in calls]


def _tokens(messages: list[generator_pb2.GenerateResponse]) -> tuple[int, ...]:
    return tuple(token for message in messages for token in message.token_ids)


def _figures(server: VllmProcess) -> dict[str, float]:
    with urlopen(server.metrics) as answer:
        families: Any = text_string_to_metric_families(answer.read().decode())
        return {sample.name: sample.value for family in families for sample in family.samples}
