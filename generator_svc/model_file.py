"""A model's YAML file: how vLLM runs one model, in one place."""

from pathlib import Path
from typing import Any

# What the file says under vLLM's name and the service also needs to know, by the setting of the same meaning.
_SETTINGS = {
    "max_num_seqs": "max_running",
    "max_model_len": "max_model_tokens",
    "kv_cache_memory_bytes": "kv_cache_bytes",
    "served_model_name": "model_name",
}
_OWN = frozenset(
    {
        "chat_template",
        "cpu_threads",
        "download",
        "dtype",
        "lora_adapters",
        "model",
        "model_name",
        "template_arguments",
        *_SETTINGS.values(),
    }
)


def read_model_file(path: Path) -> dict[str, Any]:
    """The settings in the file, the rest of it as `engine_args`.

    Its keys are `model`, the settings above, and the names of vLLM's engine arguments. Raises ValueError, which names
    the file, where it is no YAML or names no model.
    """
    # Only a node that runs vLLM needs it.
    import yaml

    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not (isinstance(said, dict) and said.get("model")):
        raise ValueError(f"{path} names no model")
    named = {_SETTINGS.get(key, key): value for key, value in said.items()}
    own = {key: value for key, value in named.items() if key in _OWN}
    return {**own, "engine_args": {key: value for key, value in named.items() if key not in _OWN}}
