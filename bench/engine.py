"""vLLM's engine called directly: the floor that no service around it can go below."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from ragmesh.generator.v1 import generator_pb2

# As generator_svc sets them on a CPU; they must stand before vllm is imported.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
_ROLES = {generator_pb2.ROLE_SYSTEM: "system", generator_pb2.ROLE_USER: "user"}


class Engine:
    """An AsyncLLM; lives as long as its `open_engine`."""

    def __init__(self, llm: Any, tokenizer: Any) -> None:
        self._llm = llm
        self._tokenizer = tokenizer

    def close(self) -> None:
        """Shut the engine down, and let go of it: its `__del__` fails once the interpreter is half gone."""
        self._llm.shutdown()
        self._llm = None

    async def generate(self, request: generator_pb2.GenerateRequest) -> AsyncGenerator[str, None]:
        """The text of a chat's answer, delta by delta, drawn greedily."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        messages = [{"role": _ROLES[said.role], "content": said.content} for said in request.chat.messages]
        rendered = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        prompt = TokensPrompt(prompt_token_ids=self._tokenizer.encode(rendered, add_special_tokens=False))
        sampling = SamplingParams(temperature=0, max_tokens=request.max_tokens, output_kind=RequestOutputKind.DELTA)
        async with aclosing(self._llm.generate(prompt, sampling, uuid4().hex)) as outputs:
            async for output in outputs:
                yield output.outputs[0].text


@asynccontextmanager
async def open_engine(model: Path) -> AsyncGenerator[Engine, None]:
    """The engine over the model's folder, warm; shut down when the body ends."""
    os.environ.update(_ENVIRONMENT)
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = AsyncEngineArgs(
        model=str(model),
        dtype="float32",
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=16,
        block_size=32,
        kv_cache_memory_bytes=64 << 20,
        enable_chunked_prefill=False,
    )
    llm = AsyncLLM.from_engine_args(arguments)
    engine = Engine(llm, await _tokenizer_of(llm))
    del llm
    try:
        yield engine
    finally:
        engine.close()


async def _tokenizer_of(llm: Any) -> Any:
    found = llm.get_tokenizer()
    return await found if hasattr(found, "__await__") else found
