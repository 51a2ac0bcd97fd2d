"""Every knob of the embedder."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from pydantic_settings import SettingsConfigDict

from embedder_svc.encoding import LoadOptions, ModelOptions, Task
from embedder_svc.weights import BUNDLED_MODEL, shown_name
from meshkit.settings import ServerSettings


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ragmesh" / "models"


_DAY_S = 24 * 60 * 60
_MIB = 1024 * 1024

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
Backend = Literal["auto", "openvino", "torch"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class ModelSettings(BaseModel):
    """One model of several; what is unset is as for all of them, or as the model has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, description="The bundled model, a folder, or a name on the Hugging Face hub.")
    kind: Literal["encoder", "reranker"] = Field("encoder", description="Whether it makes vectors or scores pairs.")
    name: str = Field("", description="Name that requests give it; empty for the folder's or the hub's.")
    device: Device | None = Field(None, description="auto, cpu, cuda or cuda:N.")
    backend: Backend | None = Field(None, description="What runs it.")
    dtype: Dtype | None = Field(None, description="What it computes in.")
    max_tokens: PositiveInt | None = Field(None, description="Tokens at which texts are cut.")
    query_prompt: str | None = Field(None, description="Text put before queries.")
    document_prompt: str | None = Field(None, description="Text put before documents.")
    matryoshka_dimensions: tuple[PositiveInt, ...] = Field((), description="Dimensions that vectors may be cut to.")

    @property
    def shown_name(self) -> str:
        """The name that requests give it."""
        return self.name or shown_name(self.model)


_OF_ONE_MODEL = frozenset(
    {
        "model",
        "model_name",
        "reranker_model",
        "reranker_model_name",
        "query_prompt",
        "document_prompt",
        "matryoshka_dimensions",
    }
)


class Settings(ServerSettings):
    """Read from RAGMESH_EMBEDDER_*."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_EMBEDDER_")

    listen: str = Field("127.0.0.1:50054", description="Address to serve gRPC on, host:port.")
    metrics_listen: str = Field("127.0.0.1:9104", description="Address to serve Prometheus metrics on; empty for none.")
    max_concurrent_rpcs: PositiveInt = Field(256, description="Calls served at once; more are refused.")

    model: str = Field(
        BUNDLED_MODEL,
        min_length=1,
        description="The encoder: the bundled model, a folder, or a name on the Hugging Face hub.",
    )
    model_name: str = Field("", description="Name that requests give the encoder; empty for the folder's or the hub's.")
    reranker_model: str = Field("", description="The cross-encoder: a folder or a name on the hub; empty for none.")
    reranker_model_name: str = Field(
        "", description="Name that requests give the cross-encoder; empty for the folder's or the hub's."
    )
    download: bool = Field(False, description="Whether to download models that are not on disk.")
    models: tuple[ModelSettings, ...] = Field(
        (),
        description="Several models (JSON), in place of the one or two that the settings above name. The first encoder "
        "and the first reranker are those of requests that name none.",
    )
    device: Device = Field("auto", description="auto, cpu, cuda or cuda:N.")
    backend: Backend = Field(
        "auto",
        description="What runs the models: openvino, for the CPU, or torch; auto for openvino where there is no GPU.",
    )
    dtype: Dtype = Field(
        "auto",
        description="What the models compute in: float32, bfloat16 or, on torch, float16. auto for that of their "
        "weights on a GPU, and on a CPU for bfloat16 where it has instructions for that, else float32.",
    )
    conversion_folder: Path = Field(
        default_factory=_user_cache, description="Folder in which models converted to ONNX are kept."
    )
    threads: NonNegativeInt = Field(0, description="Threads that a model computes with on the CPU; 0 for its cores.")
    max_tokens: PositiveInt = Field(
        8192, description="Tokens at which texts are cut, where the model itself reads as many."
    )
    query_prompt: str | None = Field(None, description="Text put before queries; unset for the model's own.")
    document_prompt: str | None = Field(None, description="Text put before documents; unset for the model's own.")
    matryoshka_dimensions: tuple[PositiveInt, ...] = Field(
        (),
        description="Dimensions that vectors may be cut to (JSON); empty for the model's own.",
    )

    max_batch_tokens: NonNegativeInt = Field(
        0, description="Tokens of a batch, padding counted; 0 for 1024 on a CPU and 65536 on a GPU."
    )
    max_padding_tokens: NonNegativeInt = Field(
        0, description="Tokens of a batch that may be padding; 0 for a sixteenth of those of the batch."
    )
    max_batch_texts: PositiveInt = Field(512, description="Texts of a batch.")
    max_queue_tokens: PositiveInt = Field(
        1_048_576, description="Tokens that wait for a model; a call that does not fit is refused."
    )
    queue_retry_after_s: PositiveFloat = Field(1.0, description="Seconds after which a refused caller may retry.")
    window_batches: PositiveInt = Field(8, description="Batches of the queue that are sorted by length together.")
    max_interactive_run: PositiveInt = Field(
        16, description="Batches of queries that may go before bulk work that waits."
    )
    tokenize_threads: PositiveInt = Field(1, description="Threads beside each model that count tokens.")
    redis_url: str = Field("", description="URL of the Redis that keeps vectors for the next call; empty for none.")
    redis_max_connections: PositiveInt = Field(64, description="Connections to Redis.")
    cache_ttl_s: PositiveInt = Field(_DAY_S, description="Seconds for which a vector is kept.")
    cache_timeout_s: PositiveFloat = Field(
        0.02, description="Seconds that looking up 128 texts may take; what is not there by then is encoded."
    )
    cache_write_timeout_s: PositiveFloat = Field(
        1.0, description="Seconds that a write to the cache may take, for which nobody waits."
    )
    cache_max_pending_bytes: PositiveInt = Field(
        16 * _MIB, description="Bytes of vectors that wait to be written; more are not kept."
    )
    cache_max_failures: PositiveInt = Field(5, description="Failures of Redis in a row after which it is left alone.")
    cache_open_s: PositiveFloat = Field(5.0, description="Seconds for which a failing Redis is left alone.")
    stream_depth: PositiveInt = Field(
        2, description="Messages of an EmbedStream that are read before the first of them is answered."
    )

    @property
    def served(self) -> tuple[ModelSettings, ...]:
        """The models to serve, the default ones of each kind first."""
        if self.models:
            return self.models
        encoder = ModelSettings(
            model=self.model,
            name=self.model_name,
            query_prompt=self.query_prompt,
            document_prompt=self.document_prompt,
            matryoshka_dimensions=self.matryoshka_dimensions,
        )
        if not self.reranker_model:
            return (encoder,)
        reranker = ModelSettings(kind="reranker", model=self.reranker_model, name=self.reranker_model_name)
        return encoder, reranker

    def options(self, model: ModelSettings) -> ModelOptions:
        """How to load one of the models served."""
        prompts = {Task.QUERY: model.query_prompt, Task.DOCUMENT: model.document_prompt}
        load = LoadOptions(
            device=model.device or self.device,
            backend=model.backend or self.backend,
            dtype=model.dtype or self.dtype,
            max_tokens=model.max_tokens or self.max_tokens,
            threads=self.threads,
            download=self.download,
            conversion_folder=self.conversion_folder,
        )
        return ModelOptions(
            model=model.model,
            name=model.shown_name,
            load=load,
            prompts={task: prompt for task, prompt in prompts.items() if prompt is not None},
            matryoshka_dimensions=model.matryoshka_dimensions,
        )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        """Models are given in one form, and each has a name of its own."""
        simple = self.model_fields_set & _OF_ONE_MODEL
        if self.models and simple:
            raise ValueError(f"MODELS stands in place of {', '.join(sorted(simple)).upper()}")
        names = [model.shown_name for model in self.served]
        if len(set(names)) < len(names):
            raise ValueError(f"two models have one name: {', '.join(sorted(names))}")
        return self
