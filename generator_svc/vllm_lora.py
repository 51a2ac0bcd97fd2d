"""LoRA adapters: loaded by name when the engine starts, chosen request by request."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

# Each place costs the memory of an adapter of the highest rank.
_MOST_PLACES = 8
_DEFAULT_RANK = 16


def lora_arguments(adapters: Mapping[str, str], given: Mapping[str, Any], *, on_cpu: bool) -> dict[str, Any]:
    """The engine arguments that the adapters need, but for those given; `adapters` are folders by name.

    All stay in memory; as many as there are places can be at work in one step. ValueError where `max_loras` leaves no
    place free on a CPU.
    """
    if not adapters:
        return {}
    # On a CPU vLLM (0.32) applies the last place to streams without an adapter, when others beside them have one: it
    # must stay empty, https://github.com/vllm-project/vllm/pull/48421.
    least = len(adapters) + 1 if on_cpu else 1
    places = given.get("max_loras", max(min(len(adapters), _MOST_PLACES), least))
    if places < least:
        raise ValueError(
            f"max_loras is {places}: on a CPU, {len(adapters)} lora_adapters need {least} or more, "
            "else streams without an adapter are given another stream's"
        )
    derived = {"enable_lora": True, "max_loras": places, "max_cpu_loras": max(places, len(adapters))}
    return derived if "max_lora_rank" in given else {**derived, "max_lora_rank": _rank(adapters.values())}


def lora_requests(adapters: Mapping[str, str]) -> dict[str, "LoRARequest"]:
    """What vLLM is handed with a request for each adapter; the same adapters have the same ids at each start."""
    if not adapters:
        return {}
    from vllm.lora.request import LoRARequest

    return {name: LoRARequest(name, id, adapters[name]) for id, name in enumerate(sorted(adapters), start=1)}


def _rank(folders: Iterable[str]) -> int:
    """The least rank that vLLM can be started with and that none of the adapters exceeds."""
    from vllm.config.lora import MaxLoRARanks

    highest = max(map(_adapter_rank, folders))
    return next((rank for rank in get_args(MaxLoRARanks) if rank >= highest), highest)


def _adapter_rank(folder: str) -> int:
    config = Path(folder) / "adapter_config.json"
    # One that is yet to be downloaded is of any rank; `max_lora_rank` says so where it is a higher one.
    return int(json.loads(config.read_text(encoding="utf-8"))["r"]) if config.is_file() else _DEFAULT_RANK
