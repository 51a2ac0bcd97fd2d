"""Every knob of the generator."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import NoDecode, SettingsConfigDict

from meshkit.settings import ServerSettings


def _read_arguments(given: object) -> object:
    """The mapping in a text that is a JSON object or the path of a YAML file."""
    if not isinstance(given, str):
        return given
    if given.lstrip().startswith("{"):
        return json.loads(given)
    if not given:
        return {}
    # Comes with vLLM, as nothing else needs it.
    import yaml

    try:
        return yaml.safe_load(Path(given).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"neither a JSON object nor a YAML file that can be read: {error}") from error


class Settings(ServerSettings):
    """Read from RAGMESH_GENERATOR_*."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_GENERATOR_", protected_namespaces=())

    listen: str = Field("127.0.0.1:50053", description="Address to serve gRPC on, host:port.")
    metrics_listen: str = Field("127.0.0.1:9103", description="Address to serve Prometheus metrics on; empty for none.")

    model: str = Field(
        "",
        description="The language model for vLLM, a folder or a name on the Hugging Face hub; empty to quote instead.",
    )
    model_name: str = Field("", description="Name that requests give the model; empty for its own.")
    max_running: PositiveInt = Field(64, description="Sequences that the engine makes at once.")
    max_waiting: NonNegativeInt = Field(256, description="Sequences that wait for it; more are refused.")
    queue_retry_after_s: PositiveFloat = Field(1.0, description="Seconds after which a refused caller may retry.")

    min_support: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Quoting: the share of the question that a sentence must cover; below it there is no answer.",
    )

    download: bool = Field(False, description="vLLM: whether to download a model that is not on disk.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="vLLM: what it computes in; auto for float32 on a CPU, the weights' own on a GPU."
    )
    max_model_tokens: NonNegativeInt = Field(
        0, description="vLLM: tokens of prompt and output together; 0 for as many as the model was made for."
    )
    kv_cache_bytes: NonNegativeInt = Field(
        0, description="vLLM: bytes of the KV cache; 0 for 256 MiB on a CPU and vLLM's own choice on a GPU."
    )
    cpu_threads: PositiveInt = Field(1, description="vLLM: threads on a CPU; more than its free cores is slow.")
    chat_template: Path | None = Field(
        None, description="vLLM: a Jinja file to render chats with; unset for the model's own template."
    )
    engine_args: Annotated[dict[str, Any], NoDecode, BeforeValidator(_read_arguments)] = Field(
        {},
        description="vLLM: further engine arguments, which win, as a JSON object or the path of a YAML file.",
    )
