"""Every knob of the embedder."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from embedder_svc.weights import BUNDLED_MODEL
from meshkit.settings import ServerSettings


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
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "float32", description="What the models compute in; auto for what their weights are stored in."
    )
    torch_threads: NonNegativeInt = Field(0, description="Threads of torch on the CPU; 0 for its own choice.")
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
        0, description="Tokens of a batch, padding counted; 0 for 2048 on a CPU and 65536 on a GPU."
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
    stream_depth: PositiveInt = Field(
        2, description="Messages of an EmbedStream that are read before the first of them is answered."
    )
