"""Every knob of the generator."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_settings import SettingsConfigDict

from generator_svc.model_file import read_model_file
from meshkit.settings import ChannelSettings, ServerSettings


class Settings(ServerSettings):
    """Read from RAGMESH_GENERATOR_*."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_GENERATOR_", protected_namespaces=())

    listen: str = Field("127.0.0.1:50053", description="Address to serve gRPC on, host:port.")
    metrics_listen: str = Field("127.0.0.1:9103", description="Address to serve Prometheus metrics on; empty for none.")

    model: str = Field(
        "",
        description="The language model for vLLM: its YAML file (deploy/models; variables set beside it win over what "
        "it says), a folder, or a name on the Hugging Face hub; empty to quote instead.",
    )
    model_name: str = Field("", description="Name that requests give the model; empty for its own.")
    max_running: PositiveInt = Field(64, description="Sequences that the engine makes at once.")
    max_waiting: NonNegativeInt = Field(256, description="Sequences that wait for it; more are refused.")
    max_running_tokens: NonNegativeInt = Field(
        0,
        description="Tokens, of prompts and of all that they may draw, that the engine holds at once; a larger request "
        "runs alone; 0 for as many as its KV cache holds.",
    )
    tenant_shares: dict[str, PositiveFloat] = Field(
        {}, description="Weights of tenants in the queue, as a JSON object; 1 for those not named."
    )
    queue_retry_after_s: PositiveFloat = Field(
        1.0, description="Fewest seconds after which a refused caller may retry; more when the queue takes longer."
    )
    max_queue_retry_after_s: PositiveFloat = Field(60.0, description="Most seconds that a refused caller is told.")

    restart_backoff_s: PositiveFloat = Field(
        1.0, description="Seconds before a dead engine is started again; doubles each time that it dies or fails to."
    )
    restart_backoff_max_s: PositiveFloat = Field(
        60.0, description="Most seconds before a start; an engine that lived for as long begins with the fewest again."
    )
    engine_close_timeout_s: PositiveFloat = Field(
        15.0, description="Seconds that an engine has to close before nobody waits for it any more."
    )

    min_support: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Quoting: the probability that the best quote answers the question; below it there is no answer.",
    )
    encoder_target: str = Field(
        "", description="Quoting: address of embedder_svc, any gRPC name; empty to go by words alone."
    )
    channel: ChannelSettings = Field(ChannelSettings(), description="Knobs of the channel to it.")
    encoder_candidates: PositiveInt = Field(
        6, description="Quoting: sentences that the encoder compares; more have changed no first quote in benchmarks."
    )
    encoder_timeout_s: PositiveFloat = Field(
        0.5, description="Quoting: seconds after which a quote is chosen without the encoder."
    )

    download: bool = Field(False, description="vLLM: whether to download a model that is not on disk.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="vLLM: what it computes in; auto for float32 on a CPU, the weights' own on a GPU."
    )
    max_model_tokens: int = Field(
        0,
        ge=-1,
        description="vLLM: tokens of prompt and output together; 0 for as many as the model was made for, -1 for as "
        "many as the KV cache holds.",
    )
    kv_cache_bytes: NonNegativeInt = Field(
        0, description="vLLM: bytes of the KV cache; 0 for 256 MiB on a CPU and vLLM's own choice on a GPU."
    )
    cpu_threads: PositiveInt = Field(1, description="vLLM: threads on a CPU; more than its free cores is slow.")
    chat_template: Path | None = Field(
        None, description="vLLM: a Jinja file to render chats with; unset for the model's own template."
    )
    template_arguments: dict[str, Any] = Field(
        {},
        description="vLLM: variables of the chat template, as a JSON object; those of a request win.",
    )
    lora_adapters: dict[str, str] = Field(
        {},
        description="vLLM: LoRA adapters that requests may name, as a JSON object from name to folder, or to a name on "
        "the hub.",
    )
    gather_max_s: float = Field(
        0.04,
        ge=0,
        description="vLLM and upstream: the longest that a stream's tokens gather for one message, a millisecond for "
        "each other stream; 0 sends each token by itself.",
    )
    engine_args: dict[str, Any] = Field(
        {},
        description="vLLM: further engine arguments, as a JSON object; each wins over a setting's and over the file's.",
    )

    upstream_url: str = Field(
        "",
        pattern=r"^(https?://(\[[\da-fA-F:.]+\]|[^\s/:@?#]+)(:\d{1,5})?(/[^\s?#]*)?)?$",
        description="An OpenAI-compatible server to ask, such as http://host:8000/v1, in place of a model here.",
    )
    upstream_model: str = Field("", description="Upstream: its name for the model; empty for the first that it lists.")
    upstream_api_key: SecretStr = Field(SecretStr(""), description="Upstream: the key that it wants; empty for none.")
    upstream_api: Literal["auto", "openai", "vllm"] = Field(
        "auto",
        description="Upstream: what it takes beside OpenAI's API; vllm for every structured output, token ids and "
        "counts, auto for vllm where its list of models says so.",
    )
    upstream_max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="Upstream: what it calls the most tokens of a chat's answer."
    )
    upstream_max_model_tokens: NonNegativeInt = Field(
        0, description="Upstream: tokens of prompt and output together, where it counts them; 0 for what it lists."
    )
    upstream_timeout_s: PositiveFloat = Field(
        5.0, description="Upstream: seconds to connect, to wait for a free connection, and for a short answer."
    )
    upstream_idle_timeout_s: PositiveFloat = Field(
        120.0, description="Upstream: seconds of silence after which a stream, or its beginning, is given up."
    )
    upstream_check_interval_s: PositiveFloat = Field(
        5.0, description="Upstream: fewest seconds between two questions whether it is there."
    )
    upstream_max_connections: PositiveInt = Field(
        256, description="Upstream: connections at once; a stream takes one, over HTTP/2 it shares one."
    )
    upstream_h2c: bool = Field(
        False, description="Upstream: speak HTTP/2 without TLS, as to Envoy; with TLS it is negotiated."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_model_file(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Where the model is a YAML file, what that says, beneath what else was given."""
        path = str(given.get("model", ""))
        if not path.endswith((".yaml", ".yml")):
            return given
        try:
            read = read_model_file(Path(path))
        except ValueError as error:
            problem = PydanticCustomError("model_file", "{problem}", {"problem": str(error)})
            raise ValidationError.from_exception_data(
                cls.__name__, [InitErrorDetails(type=problem, loc=("model",), input=path)]
            ) from error
        arguments = {**read["engine_args"], **given.get("engine_args", {})}
        return {**read, **given, "model": read["model"], "engine_args": arguments}

    @field_validator("upstream_api_key")
    @classmethod
    def _sendable(cls, key: SecretStr) -> SecretStr:
        # What refuses a header tells its value; and a key read from a file may end with a line end.
        if not re.fullmatch(r"[!-~]*", key.get_secret_value()):
            raise ValueError("a key is of visible ASCII characters")
        return key

    @field_validator("upstream_url")
    @classmethod
    def _one_engine(cls, url: str, read: ValidationInfo) -> str:
        if url and read.data.get("model"):
            raise ValueError("excludes RAGMESH_GENERATOR_MODEL: a model is run here, or it is asked for there")
        return url
