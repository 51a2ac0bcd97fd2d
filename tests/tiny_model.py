"""A language model small enough for tests: random weights, its own tokenizer and chat template, made in a second."""

import sys
from pathlib import Path
from typing import Any

VOCABULARY = 1024
CONTEXT_TOKENS = 1024

_CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_MARKS = ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"]
# Enough English to fill the vocabulary, and the same everywhere.
_TEXT = Path(__file__).parents[1] / "LICENSE"


def make_tiny_model(folder: Path, *, whole_characters: bool = False) -> Path:
    """Write a Llama of 1.3 million random parameters, its tokenizer and its chat template to the folder.

    The weights are the same each time, and wide enough that greedy decoding has no near ties. With `whole_characters`
    greedy decoding draws no token that is but a part of one: each then shows, as nearly all of a real model's do.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        dtype=torch.float32,
    )
    model = LlamaForCausalLM(config)
    if whole_characters:
        # The output weights are the same: a row of zeros is the logit 0, which is never the greatest of so many.
        model.get_input_embeddings().weight.data[_partial(tokenizer)] = 0
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def _partial(tokenizer: Any) -> list[int]:
    """The ids of tokens that alone are no whole characters, and of the marks."""
    return [token for token in range(VOCABULARY) if "\ufffd" in (text := tokenizer.decode(token)) or text in _MARKS]


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=_MARKS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(_TEXT)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|end|>",
        chat_template=_CHAT_TEMPLATE,
        model_max_length=CONTEXT_TOKENS,
    )


if __name__ == "__main__":
    make_tiny_model(Path(sys.argv[1]))
