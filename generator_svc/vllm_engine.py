"""The engine that runs a language model by vLLM, on a GPU or on a CPU."""

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from generator_svc import orphans
from generator_svc.engine import (
    Card,
    Chat,
    Delta,
    EngineKind,
    Form,
    Grounded,
    Input,
    Message,
    Prompt,
    Request,
    Work,
    unsupported,
)
from generator_svc.vllm_outputs import Progress, engine_unavailable
from meshkit.errors import InvalidArgument, invalid, map_exceptions

if TYPE_CHECKING:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

_CPU_KV_CACHE_BYTES = 256 * 1024 * 1024
# Arguments of transformers' apply_chat_template: what is left is the template's own.
_RESERVED = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "max_length",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)
_SOURCE_PLACE = re.compile(r"\[[\d:]+\] \S+\.cc:\d+: ")


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
    drain_grace_s: float = 20.0
    engine_args: Mapping[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def open_vllm_engine(options: VllmOptions) -> AsyncIterator["VllmEngine"]:
    """The engine with its model loaded and its first request behind it; raises what vLLM raises where it cannot."""
    _set_environment(options)
    gauge = _CacheGauge()
    # The thread lives as long as the loop's executor: the engine's process is killed when the thread that made it ends.
    llm = await asyncio.to_thread(_start, options, gauge)
    try:
        engine = VllmEngine(llm, options.model_name, options.chat_template, gauge)
        await engine.warm_up()
        yield engine
    finally:
        await asyncio.to_thread(llm.shutdown)


def _set_environment(options: VllmOptions) -> None:
    """What vLLM reads from the environment, when it is imported and in its engine's process."""
    orphans.lead()
    os.environ.update(
        # On a CPU the model then runs in the engine's process, not in one more.
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_CONFIGURE_LOGGING="0",
        VLLM_NO_USAGE_STATS="1",
        # OpenMP threads that share a core wait for each other: 8 tokens/s instead of 131.
        OMP_NUM_THREADS=str(options.cpu_threads),
        HF_HUB_OFFLINE="0" if options.download else "1",
    )


def _start(options: VllmOptions, gauge: "_CacheGauge") -> "AsyncLLM":
    from vllm.v1.engine.async_llm import AsyncLLM

    return AsyncLLM.from_engine_args(
        _arguments(options), start_engine_loop=True, stat_loggers=[lambda _config, _index: gauge]
    )


def _arguments(options: VllmOptions) -> "AsyncEngineArgs":
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform

    arguments: dict[str, Any] = {
        "model": options.model,
        "served_model_name": options.model_name,
        "max_num_seqs": options.max_running,
        "dtype": options.dtype,
        "max_model_len": options.max_model_tokens or None,
        "kv_cache_memory_bytes": options.kv_cache_bytes or None,
        "scheduling_policy": "priority",
        # Without it a SIGTERM to the process group ends the streams that are still draining.
        "shutdown_timeout": max(round(options.drain_grace_s), 1),
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    if current_platform.is_cpu():
        arguments |= {
            "dtype": "float32" if options.dtype == "auto" else options.dtype,
            "kv_cache_memory_bytes": options.kv_cache_bytes or _CPU_KV_CACHE_BYTES,
            "enforce_eager": True,
            "block_size": 32,
            # With it a request that has a seed kills the engine.
            "enable_chunked_prefill": False,
        }
    return AsyncEngineArgs(**{**arguments, **options.engine_args})


class VllmEngine:
    """A model run by vLLM; made and shut down by `open_vllm_engine`, lives on one event loop."""

    def __init__(self, llm: "AsyncLLM", model: str, chat_template: str | None, gauge: "_CacheGauge") -> None:
        self._llm = llm
        self._chat_template = chat_template
        self._gauge = gauge
        self._defaults: dict[str, Any] = {
            name: value for name, value in llm.model_config.get_diff_sampling_param().items() if name != "max_tokens"
        }
        self.card = Card(
            model=model,
            kind=EngineKind.LANGUAGE_MODEL,
            engine="vllm",
            description="A language model, run by vLLM.",
            max_model_tokens=llm.model_config.max_model_len,
            structured_output=True,
            cache_tokens=_cache_tokens(llm.vllm_config.cache_config),
        )

    @property
    def cache_use(self) -> float:
        """As of the engine's last step."""
        return self._gauge.use

    async def prepare(self, request: Request) -> Work:
        """The prompt's token ids and vLLM's parameters; raises PROMPT_TOO_LONG with the numbers."""
        arrived_s = time.monotonic()
        prompt = await self._tokens(request.input)
        max_tokens = self._max_tokens(request, len(prompt))
        with _engine_errors(_blamed(request)):
            payload = (prompt, self._params(request, max_tokens))
        return Work(request, arrived_s, len(prompt), max_tokens, payload)

    async def generate(self, work: Work) -> AsyncGenerator[Delta, None]:
        """The tokens as they are drawn; those that nobody took in time come joined."""
        request, progress = work.request, Progress(work)
        prompt, params = work.payload
        with _engine_errors(_blamed(request)):
            stream = self._llm.generate({"type": "token", "prompt_token_ids": prompt}, params, request.key)
            async with aclosing(stream) as outputs:
                async for output in outputs:
                    for delta in progress.deltas(output):
                        yield delta

    async def count_tokens(self, given: Chat | Prompt) -> int:
        """The length of the prompt, also where it is longer than the model takes."""
        return len(await self._tokens(given))

    async def check(self) -> None:
        """Raises Unavailable when the engine's process has died."""
        with _engine_errors():
            await self._llm.check_health()

    async def warm_up(self) -> None:
        """Draw one token: the first request takes seconds, and no caller's should be it."""
        request = Request("warm-up", Prompt("."), max_tokens=1)
        async with aclosing(self.generate(await self.prepare(request))) as deltas:
            async for _ in deltas:
                pass

    async def _tokens(self, given: Input) -> list[int]:
        """The token ids of the whole prompt, however long."""
        if isinstance(given, Grounded):
            raise unsupported("grounded", "a language model takes a chat or a prompt")
        with _engine_errors("prompt" if isinstance(given, Prompt) else "chat"):
            if isinstance(given, Prompt):
                (prompt,) = await self._llm.renderer.render_cmpl_async(
                    [{"prompt": given.text}], _unbounded(special_tokens=True)
                )
            else:
                _, (prompt,) = await self._llm.renderer.render_chat_async(
                    [[_message(message) for message in given.messages]],
                    self._chat_params(given),
                    _unbounded(special_tokens=False),
                )
        return list(prompt["prompt_token_ids"])

    def _chat_params(self, chat: Chat) -> Any:
        from vllm.renderers.params import ChatParams

        if taken := _RESERVED.intersection(chat.template_arguments):
            raise invalid("chat.template_arguments", f"not a template's variable: {', '.join(sorted(taken))}")
        arguments = {**chat.template_arguments, "add_generation_prompt": True}
        return ChatParams(chat_template=self._chat_template, chat_template_kwargs=arguments)

    def _max_tokens(self, request: Request, prompt_tokens: int) -> int:
        limit = self.card.max_model_tokens
        max_tokens = request.max_tokens or max(limit - prompt_tokens, 1)
        if prompt_tokens + max_tokens > limit:
            raise _too_long(prompt_tokens, request.max_tokens, limit)
        return max_tokens

    def _params(self, request: Request, max_tokens: int) -> "SamplingParams":
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        given = {name: value for name, value in asdict(request.sampling).items() if value is not None}
        return SamplingParams(
            **{**self._defaults, **given},
            n=request.n,
            max_tokens=max_tokens,
            stop=list(request.stop),
            stop_token_ids=list(request.stop_token_ids),
            ignore_eos=request.ignore_eos,
            logprobs=request.logprobs or None,
            structured_outputs=_structured(request.form) if request.form else None,
            output_kind=RequestOutputKind.DELTA,
        )


class _CacheGauge:
    """Is told by vLLM, after each step, how full its KV cache is: the methods are those of its StatLoggerBase."""

    def __init__(self) -> None:
        self.use = 0.0

    def record(self, scheduler_stats: Any, *_: Any, **__: Any) -> None:
        if scheduler_stats is not None:
            self.use = scheduler_stats.kv_cache_usage

    def log(self) -> None:
        """Nothing is logged: the gauge is read."""

    log_engine_initialized = log

    def record_sleep_state(self, *_: Any) -> None:
        """The engine is never put to sleep."""


def _unbounded(*, special_tokens: bool) -> Any:
    """Tokenizing without vLLM's own bound, which would cut the count that the error tells."""
    from vllm.renderers.params import TokenizeParams

    return TokenizeParams(max_total_tokens=None, add_special_tokens=special_tokens)


def _message(message: Message) -> dict[str, str]:
    answered = {"tool_call_id": message.tool_call_id} if message.tool_call_id else {}
    return {"role": message.role, "content": message.content, **answered}


def _structured(form: Form) -> Any:
    from vllm.sampling_params import StructuredOutputsParams

    return StructuredOutputsParams(
        json=form.json_schema,
        regex=form.regex,
        choice=list(form.choice) if form.choice else None,
        grammar=form.grammar,
        json_object=form.json_object,
    )


@contextmanager
def _engine_errors(field: str = "") -> Iterator[None]:
    """Our errors for vLLM's: its own death, and what it finds wrong, in `field` where it names no other."""
    from vllm.exceptions import GracefulHTTPError, VLLMClientError
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    table: dict[type[Exception], Any] = {
        VLLMClientError: lambda error: _refused(error, field),
        GracefulHTTPError: engine_unavailable,
        EngineDeadError: engine_unavailable,
        EngineGenerateError: engine_unavailable,
    }
    with map_exceptions(table):
        yield


def _blamed(request: Request) -> str:
    """The field that is wrong where vLLM names none."""
    return "structured_output" if request.form else "sampling"


def _cache_tokens(config: Any) -> int:
    """What the engine reported of its KV cache when it started."""
    return (config.num_gpu_blocks or 0) * config.block_size


def _refused(error: Exception, field: str) -> InvalidArgument:
    return invalid(getattr(error, "parameter", None) or field, _SOURCE_PLACE.sub("", str(error)).strip())


def _too_long(prompt_tokens: int, max_tokens: int, limit: int) -> InvalidArgument:
    return InvalidArgument(
        "PROMPT_TOO_LONG",
        f"{prompt_tokens} tokens of prompt and {max_tokens} of output do not fit the model's {limit}",
        metadata={
            "prompt_tokens": str(prompt_tokens),
            "max_tokens": str(max_tokens),
            "max_model_tokens": str(limit),
        },
    )
