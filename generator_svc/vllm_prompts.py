"""Turns what is asked into the model's tokens, by its own tokenizer and chat template."""

from collections.abc import Mapping
from typing import Any

from generator_svc.engine import Chat, Grounded, Input, Message, Prompt, unsupported
from meshkit.errors import invalid

# Up to here reading a prompt takes about a millisecond; longer ones leave the event loop for a thread of vLLM's.
_INLINE_CHARACTERS = 4096
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


class Prompts:
    """A model's prompts; `renderer` is the one of its AsyncLLM."""

    def __init__(self, renderer: Any, chat_template: str | None, template_arguments: Mapping[str, Any]) -> None:
        """`chat_template` is Jinja, None for the model's own; a chat's own arguments win over `template_arguments`."""
        self._renderer = renderer
        self._chat_template = chat_template
        self._template_arguments = template_arguments

    async def tokens(self, given: Input) -> list[int]:
        """The token ids of the whole prompt, however long; raises vLLM's errors where the template refuses it."""
        if isinstance(given, Grounded):
            raise unsupported("grounded", "a language model takes a chat or a prompt")
        prompt = await (self._of_text(given) if isinstance(given, Prompt) else self._of_chat(given))
        return list(prompt["prompt_token_ids"])

    async def _of_text(self, given: Prompt) -> Any:
        asked = ([{"prompt": given.text}], _unbounded(special_tokens=True))
        if len(given.text) <= _INLINE_CHARACTERS:
            (prompt,) = self._renderer.render_cmpl(*asked)
        else:
            (prompt,) = await self._renderer.render_cmpl_async(*asked)
        return prompt

    async def _of_chat(self, given: Chat) -> Any:
        messages = [_message(message) for message in given.messages]
        asked = ([messages], self._chat_params(given), _unbounded(special_tokens=False))
        if sum(len(message.content) for message in given.messages) <= _INLINE_CHARACTERS:
            _, (prompt,) = self._renderer.render_chat(*asked)
        else:
            _, (prompt,) = await self._renderer.render_chat_async(*asked)
        return prompt

    def _chat_params(self, chat: Chat) -> Any:
        from vllm.renderers.params import ChatParams

        if taken := _RESERVED.intersection(chat.template_arguments):
            raise invalid("chat.template_arguments", f"not a template's variable: {', '.join(sorted(taken))}")
        arguments = {**self._template_arguments, **chat.template_arguments, "add_generation_prompt": True}
        return ChatParams(chat_template=self._chat_template, chat_template_kwargs=arguments)


def _unbounded(*, special_tokens: bool) -> Any:
    """Tokenizing without vLLM's own bound, which would cut the count that the error tells."""
    from vllm.renderers.params import TokenizeParams

    return TokenizeParams(max_total_tokens=None, add_special_tokens=special_tokens)


def _message(message: Message) -> dict[str, str]:
    answered = {"tool_call_id": message.tool_call_id} if message.tool_call_id else {}
    return {"role": message.role, "content": message.content, **answered}
