"""What vLLM is started with."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from generator_svc import orphans
from generator_svc.vllm_lora import lora_arguments

if TYPE_CHECKING:
    from vllm.engine.arg_utils import AsyncEngineArgs

_CPU_KV_CACHE_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """How vLLM is started; the service's settings of the same names say what each is."""

    model: str
    model_name: str
    max_running: int
    download: bool = False
    dtype: str = "auto"
    max_model_tokens: int = 0
    kv_cache_bytes: int = 0
    cpu_threads: int = 1
    chat_template: str | None = None
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    lora_adapters: Mapping[str, str] = field(default_factory=dict)
    gather_max_s: float = 0.04
    drain_grace_s: float = 20.0
    engine_args: Mapping[str, Any] = field(default_factory=dict)


def set_environment(options: VllmOptions) -> None:
    """What vLLM reads from the environment, when it is imported and in its engine's process."""
    orphans.lead()
    os.environ.update(
        # On a CPU the model then runs in the engine's process, not in one more.
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_CONFIGURE_LOGGING="0",
        VLLM_NO_USAGE_STATS="1",
        # OpenMP threads that share a core wait for each other: 8 tokens/s instead of 131.
        OMP_NUM_THREADS=str(options.cpu_threads),
        # Else n-gram drafts bring up OpenMP threads of their own: on busy cores over 100 s for what takes 4.
        NUMBA_THREADING_LAYER="workqueue",
        HF_HUB_OFFLINE="0" if options.download else "1",
    )


def engine_arguments(options: VllmOptions) -> "AsyncEngineArgs":
    """The arguments: ours, then the platform's, then `engine_args`; ValueError for those that cannot be."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform

    known = {argument.name for argument in fields(AsyncEngineArgs)}
    if unknown := sorted(options.engine_args.keys() - known):
        raise ValueError(f"vLLM has no engine argument of this name: {', '.join(unknown)}")
    on_cpu = current_platform.is_cpu()
    cpu = _cpu_arguments(options) if on_cpu else {}
    lora = lora_arguments(options.lora_adapters, options.engine_args, on_cpu=on_cpu)
    return AsyncEngineArgs(**{**_arguments(options), **cpu, **lora, **options.engine_args})


def _arguments(options: VllmOptions) -> dict[str, Any]:
    return {
        "model": options.model,
        "served_model_name": options.model_name,
        "max_num_seqs": options.max_running,
        "dtype": options.dtype,
        "max_model_len": options.max_model_tokens or None,
        "kv_cache_memory_bytes": options.kv_cache_bytes or None,
        "enable_prefix_caching": True,
        # Without it a SIGTERM to the process group ends the streams that are still draining.
        "shutdown_timeout": max(round(options.drain_grace_s), 1),
        # xgrammar (0.2.8) draws raw control characters in strings of a bounded length, which is no JSON.
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
    }


def _cpu_arguments(options: VllmOptions) -> dict[str, Any]:
    return {
        "dtype": "float32" if options.dtype == "auto" else options.dtype,
        "kv_cache_memory_bytes": options.kv_cache_bytes or _CPU_KV_CACHE_BYTES,
        "enforce_eager": True,
        "block_size": 32,
        # With it a request that has a seed kills the engine.
        "enable_chunked_prefill": False,
    }
