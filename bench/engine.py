"""vLLM's engine called directly: the floor that no service around it can go below."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from ragmesh.generator.v1 import generator_pb2

# As generator_svc sets them on a CPU; they must stand before vllm is imported.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
MAX_STREAMS = 128
"""Sequences that every measured engine makes at once."""

_ROLES = {generator_pb2.ROLE_SYSTEM: "system", generator_pb2.ROLE_USER: "user"}


@dataclass(frozen=True, slots=True)
class Piece:
    """What an answer is continued by, and how many tokens that is."""

    text: str
    tokens: int


class Engine:
    """An AsyncLLM; lives as long as its `open_engine`."""

    def __init__(self, llm: Any, tokenizer: Any) -> None:
        self._llm = llm
        self._tokenizer = tokenizer

    def close(self) -> None:
        """Shut the engine down, and let go of it: its `__del__` fails once the interpreter is half gone."""
        self._llm.shutdown()
        self._llm = None

    async def generate(self, request: generator_pb2.GenerateRequest) -> AsyncGenerator[Piece, None]:
        """A chat's answer, delta by delta, drawn greedily."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        messages = [{"role": _ROLES[said.role], "content": said.content} for said in request.chat.messages]
        rendered = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        prompt = TokensPrompt(prompt_token_ids=self._tokenizer.encode(rendered, add_special_tokens=False))
        sampling = SamplingParams(
            temperature=0,
            max_tokens=request.max_tokens,
            ignore_eos=request.ignore_eos,
            output_kind=RequestOutputKind.DELTA,
        )
        async with aclosing(self._llm.generate(prompt, sampling, uuid4().hex)) as outputs:
            async for output in outputs:
                yield Piece(output.outputs[0].text, len(output.outputs[0].token_ids))


def arguments() -> dict[str, Any]:
    """The engine arguments of every measured engine, the model apart; several of them fit on one device."""
    os.environ.update(ENVIRONMENT)
    from vllm.platforms import current_platform

    same = {"max_num_seqs": MAX_STREAMS, "max_num_batched_tokens": 4096, "enable_prefix_caching": True}
    if not current_platform.is_cpu():
        return {**same, "max_model_len": 4096, "gpu_memory_utilization": 0.28}
    return {
        **same,
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 1024,
        "block_size": 32,
        "kv_cache_memory_bytes": 256 << 20,
        "enable_chunked_prefill": False,
    }


@asynccontextmanager
async def open_engine(model: str) -> AsyncGenerator[Engine, None]:
    """The engine over the model, a folder or a name; shut down when the body ends."""
    given = arguments()
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(model=model, **given))
    engine = Engine(llm, await _tokenizer_of(llm))
    del llm
    try:
        yield engine
    finally:
        engine.close()


async def _tokenizer_of(llm: Any) -> Any:
    found = llm.get_tokenizer()
    return await found if hasattr(found, "__await__") else found
