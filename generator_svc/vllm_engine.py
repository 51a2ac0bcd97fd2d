"""The engine that runs a language model by vLLM, on a GPU or on a CPU."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from generator_svc import orphans
from generator_svc.engine import (
    Card,
    Chat,
    Delta,
    EngineKind,
    Form,
    Input,
    Prompt,
    Request,
    Work,
    unsupported,
)
from generator_svc.gathering import Gathering
from generator_svc.vllm_arguments import VllmOptions, engine_arguments, set_environment
from generator_svc.vllm_lora import lora_requests
from generator_svc.vllm_outputs import Progress, engine_unavailable
from generator_svc.vllm_prompts import Prompts
from meshkit.errors import InvalidArgument, invalid, map_exceptions

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

_SOURCE_PLACE = re.compile(r"\[[\d:]+\] \S+\.cc:\d+: ")


@asynccontextmanager
async def open_vllm_engine(options: VllmOptions) -> AsyncIterator["VllmEngine"]:
    """The engine with its model loaded and its first request behind it; raises what vLLM raises where it cannot."""
    set_environment(options)
    gauge = _CacheGauge()
    llm = await orphans.started(lambda: _start(options, gauge), lambda llm: llm.shutdown())
    try:
        adapters = lora_requests(options.lora_adapters)
        for adapter in adapters.values():
            # Now, and not at its first request: what cannot be loaded then ends the engine.
            await llm.add_lora(adapter)
        engine = VllmEngine(llm, options, gauge, adapters)
        await engine.warm_up()
        yield engine
    finally:
        await asyncio.to_thread(llm.shutdown)


def _start(options: VllmOptions, gauge: "_CacheGauge") -> "AsyncLLM":
    arguments = engine_arguments(options)
    from vllm.v1.engine.async_llm import AsyncLLM

    return AsyncLLM.from_engine_args(arguments, stat_loggers=[lambda _config, _index: gauge])


class VllmEngine:
    """A model run by vLLM; made and shut down by `open_vllm_engine`, lives on one event loop."""

    def __init__(
        self, llm: "AsyncLLM", options: VllmOptions, gauge: "_CacheGauge", adapters: Mapping[str, "LoRARequest"]
    ) -> None:
        self._llm = llm
        self._prompts = Prompts(llm.renderer, options.chat_template, options.template_arguments)
        self._gauge = gauge
        self._adapters = adapters
        self._gathering = Gathering(options.gather_max_s)
        self._defaults: dict[str, Any] = {
            name: value for name, value in llm.model_config.get_diff_sampling_param().items() if name != "max_tokens"
        }
        self.card = Card(
            model=options.model_name,
            kind=EngineKind.LANGUAGE_MODEL,
            engine="vllm",
            description="A language model, run by vLLM.",
            max_model_tokens=llm.model_config.max_model_len,
            structured_output=True,
            cache_tokens=_cache_tokens(llm.vllm_config.cache_config),
            lora_adapters=tuple(adapters),
        )

    @property
    def cache_use(self) -> float:
        """As of the engine's last step."""
        return self._gauge.use

    async def prepare(self, request: Request) -> Work:
        """The prompt's token ids and vLLM's parameters; raises PROMPT_TOO_LONG with the numbers."""
        arrived_s = time.monotonic()
        self._check_adapter(request.lora_adapter)
        prompt = await self._tokens(request.input)
        max_tokens = self._max_tokens(request, len(prompt))
        with _engine_errors(_blamed(request)):
            params = self._params(request, max_tokens)
        return Work(request, arrived_s, len(prompt), max_tokens, (prompt, params))

    async def generate(self, work: Work) -> AsyncGenerator[Delta, None]:
        """The tokens as they are drawn, the first at once; those that nobody took in time come joined.

        Among other streams each waits a moment between its messages, in which its next tokens gather.
        """
        request, progress = work.request, Progress(work)
        prompt, params = work.payload
        with _engine_errors(_blamed(request)):
            stream = self._llm.generate(
                {"type": "token", "prompt_token_ids": prompt},
                params,
                request.key,
                lora_request=self._adapters.get(request.lora_adapter),
            )
            with self._gathering.stream():
                async with aclosing(stream) as outputs:
                    async for output in outputs:
                        for delta in progress.deltas(output):
                            yield delta
                        if (gap_s := self._gathering.gap_s) and not output.finished:
                            await asyncio.sleep(gap_s)

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
        with _engine_errors("prompt" if isinstance(given, Prompt) else "chat"):
            return await self._prompts.tokens(given)

    def _check_adapter(self, name: str) -> None:
        if not name or name in self._adapters:
            return
        if not self._adapters:
            raise unsupported("lora_adapter", "this model has no adapters")
        raise invalid("lora_adapter", f"no adapter of this name; there are {', '.join(self._adapters)}")

    def _max_tokens(self, request: Request, prompt_tokens: int) -> int:
        limit = self.card.max_model_tokens
        max_tokens = request.max_tokens or max(limit - prompt_tokens, 1)
        if prompt_tokens + max_tokens > limit:
            raise _too_long(prompt_tokens, request.max_tokens, limit)
        return max_tokens

    def _params(self, request: Request, max_tokens: int) -> "SamplingParams":
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        given = {name: value for name, value in asdict(request.sampling).items() if value is not None}
        params = SamplingParams(
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
        config = self._llm.vllm_config
        params.verify(
            self._llm.model_config,
            config.speculative_config,
            config.structured_outputs_config,
            self._llm.renderer.tokenizer,
        )
        return params


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
