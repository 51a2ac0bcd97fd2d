"""Writes a request as the body that an OpenAI-compatible upstream takes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from generator_svc.engine import Chat, Form, Grounded, Input, Message, Prompt, Request, unsupported
from meshkit.errors import invalid

# What an upstream may refuse to know, by its name there and by ours.
EXTENSIONS: Mapping[str, str] = {
    "top_k": "sampling.top_k",
    "min_p": "sampling.min_p",
    "repetition_penalty": "sampling.repetition_penalty",
    "stop_token_ids": "stop_token_ids",
    "ignore_eos": "ignore_eos",
    "chat_template_kwargs": "chat.template_arguments",
    "response_format": "structured_output",
    "structured_outputs": "structured_output",
    "logprobs": "logprobs",
    "seed": "sampling.seed",
}


@dataclass(frozen=True, slots=True)
class Upstream:
    """What is known of an upstream: its name for the model, and whether it takes and tells what only vLLM does.

    `max_model_tokens` bounds prompt and output together, 0 where it does not say.
    """

    model: str
    vllm: bool = False
    max_model_tokens: int = 0
    lora_adapters: tuple[str, ...] = ()


def path(given: Input) -> str:
    """Where to post it, below the upstream's URL; raises UNSUPPORTED_BY_ENGINE for what is no chat and no prompt."""
    if isinstance(given, Grounded):
        raise unsupported("grounded", "a language model takes a chat or a prompt")
    return "/chat/completions" if isinstance(given, Chat) else "/completions"


def body(request: Request, upstream: Upstream, max_tokens_field: str) -> dict[str, Any]:
    """What to post; raises InvalidArgument where the upstream has no words for what is asked."""
    if request.lora_adapter and request.lora_adapter not in upstream.lora_adapters:
        raise unsupported("lora_adapter", f"the upstream has no adapter {request.lora_adapter}")
    written: dict[str, Any] = {
        # An upstream offers an adapter as a model of its own.
        "model": request.lora_adapter or upstream.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        **_input(request.input),
        **{name: value for name, value in asdict(request.sampling).items() if value is not None},
        **_length(request, upstream, max_tokens_field),
        **_logprobs(request),
    }
    if request.form:
        written |= _structured(request.form, vllm=upstream.vllm)
    if upstream.vllm:
        written["return_token_ids"] = True
    optional = {
        "n": request.n if request.n > 1 else None,
        "stop": request.stop,
        "stop_token_ids": request.stop_token_ids,
        "ignore_eos": request.ignore_eos,
    }
    return written | {name: value for name, value in optional.items() if value}


def counted(given: Input, upstream: Upstream) -> dict[str, Any]:
    """What to post to vLLM's `/tokenize`, for the tokens that `body` comes to."""
    return {"model": upstream.model, **_input(given)}


def _input(given: Input) -> dict[str, Any]:
    if isinstance(given, Prompt):
        return {"prompt": given.text}
    if isinstance(given, Grounded):
        return {}
    arguments = dict(given.template_arguments)
    template = {"chat_template_kwargs": arguments} if arguments else {}
    return {"messages": [_message(message) for message in given.messages], **template}


def _message(message: Message) -> dict[str, str]:
    answered = {"tool_call_id": message.tool_call_id} if message.tool_call_id else {}
    return {"role": message.role, "content": message.content, **answered}


def _length(request: Request, upstream: Upstream, max_tokens_field: str) -> dict[str, int]:
    if isinstance(request.input, Chat):
        return {max_tokens_field: request.max_tokens} if request.max_tokens else {}
    # For a prompt vLLM takes none to mean 16, and more than fit to mean as many as fit.
    max_tokens = request.max_tokens or upstream.max_model_tokens
    return {"max_tokens": max_tokens} if max_tokens else {}


def _logprobs(request: Request) -> dict[str, int | bool]:
    if not request.logprobs:
        return {}
    if isinstance(request.input, Prompt):
        return {"logprobs": request.logprobs}
    return {"logprobs": True, "top_logprobs": request.logprobs}


def _structured(form: Form, *, vllm: bool) -> dict[str, Any]:
    if form.json_schema is not None:
        schema = _schema(form.json_schema)
        if vllm:
            return {"structured_outputs": {"json": schema}}
        named = {"name": "output", "schema": schema, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": named}}
    if form.json_object:
        return {"response_format": {"type": "json_object"}}
    if not vllm:
        raise unsupported("structured_output", "the upstream takes a JSON schema and json_object only")
    forms = {"regex": form.regex, "choice": form.choice, "grammar": form.grammar}
    return {"structured_outputs": {name: value for name, value in forms.items() if value is not None}}


def _schema(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise invalid("structured_output.json_schema", f"not JSON: {error}") from error
