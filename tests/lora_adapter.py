"""A LoRA adapter for the tiny model, as peft writes one: random, and strong enough to change what is likeliest."""

import json
from pathlib import Path
from typing import Any

SCALE = 2.0
_TARGETS = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")


def make_lora_adapter(folder: Path, model: Path, rank: int = 8, seed: int = 1) -> Path:
    """Write the adapter of the model's attention and MLP; the same for the same seed."""
    import torch
    from safetensors.torch import load_file, save_file

    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, weight in load_file(model / "model.safetensors").items():
        if name.removesuffix(".weight").endswith(_TARGETS):
            outputs, inputs = weight.shape
            path = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{path}.lora_A.weight"] = 0.2 * torch.randn(rank, inputs, generator=random)
            tensors[f"{path}.lora_B.weight"] = 0.2 * torch.randn(outputs, rank, generator=random)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": SCALE * rank,
        "target_modules": [target.rpartition(".")[2] for target in _TARGETS],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def merge(reference: Any, adapter: Path) -> None:
    """Add the adapter to the weights of a model of transformers: W + scale B A."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(adapter / "adapter_model.safetensors")
    with torch.no_grad():
        for name, weight in reference.named_parameters():
            path = f"base_model.model.{name.removesuffix('.weight')}"
            if f"{path}.lora_A.weight" in tensors:
                weight.add_(SCALE * tensors[f"{path}.lora_B.weight"] @ tensors[f"{path}.lora_A.weight"])
