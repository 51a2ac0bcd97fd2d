"""Every knob of the retriever."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import SettingsConfigDict

from meshkit.settings import ChannelSettings, ServerSettings

_MIB = 1024 * 1024


class HedgingSettings(BaseModel):
    """Knobs of second attempts at encoding, which several replicas of embedder_svc allow."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: float = Field(0.05, ge=0, le=1, description="Share of calls that may have a second attempt; 0 for none.")
    burst: float = Field(10.0, ge=1, description="Most second attempts that are saved up.")
    quantile: float = Field(0.95, gt=0, le=1, description="Share of the latest calls that are not slow.")
    window: PositiveInt = Field(256, description="Latest calls that tell what is slow.")
    least: PositiveInt = Field(20, description="Calls below which nothing is told: the ceiling holds.")
    floor_s: float = Field(0.01, ge=0, description="Seconds before which no second attempt is made.")
    ceiling_s: float = Field(1.0, ge=0, description="Seconds after which one is made in any case, within the budget.")


class LanceSettings(BaseModel):
    """Knobs of an index in LanceDB."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vector_index: Literal["auto", "flat", "ivf_sq", "ivf_rq"] = Field(
        "auto", description="How vectors are found from index_rows on: auto chooses by size, flat compares all."
    )
    index_rows: PositiveInt = Field(10_000, description="Chunks from which a collection has an index of its vectors.")
    compressed_rows: PositiveInt = Field(2_000_000, description="Chunks from which auto takes one bit a dimension.")
    probes: int = Field(0, ge=0, description="Lists of the index that a search reads; 0 lets each index find out.")
    recall: float = Field(0.98, gt=0, le=1, description="Share of the exact best ten that it is to find.")
    cache_bytes: PositiveInt = Field(1024 * _MIB, description="Bytes of indexes kept in memory.")
    max_open_tables: PositiveInt = Field(256, description="Collections kept open.")
    upkeep_interval_s: PositiveFloat = Field(1.0, description="Seconds between two looks at what is to be indexed.")
    sync: bool = Field(True, description="Whether a write is answered when it is on the disk, not when it is written.")


class Settings(ServerSettings):
    """Read from RAGMESH_RETRIEVER_*."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_RETRIEVER_")

    listen: str = Field("127.0.0.1:50052", description="Address to serve gRPC on, host:port.")
    metrics_listen: str = Field("127.0.0.1:9102", description="Address to serve Prometheus metrics on; empty for none.")
    max_concurrent_rpcs: PositiveInt = Field(256, description="Calls served at once; more are refused.")

    index_uri: str = Field(
        "lance:index",
        min_length=1,
        description="The index: lance:FOLDER, milvus:FOLDER for Milvus Lite, or http(s)://host:port of Milvus.",
    )
    milvus_uri: str = Field("", description="The same, where it is Milvus; goes before index_uri.")
    lance: LanceSettings = Field(LanceSettings(), description="Knobs of LanceDB.")
    milvus_token: SecretStr = Field(SecretStr(""), description="Token, or user:password, for a Milvus server.")
    milvus_consistency: Literal["Strong", "Session", "Bounded", "Eventually"] = Field(
        "Strong", description="What a search on a Milvus server sees of the writes before it."
    )
    index_timeout_s: PositiveFloat = Field(10.0, description="Seconds that a read of the index may take.")
    write_timeout_s: PositiveFloat = Field(60.0, description="Seconds that a write to the index may take.")
    flush_interval_s: PositiveFloat = Field(
        5.0, description="Seconds between two rounds in which Milvus Lite indexes what was written."
    )
    max_write_bytes: PositiveInt = Field(
        32 * _MIB, description="Bytes of text and vectors sent to Milvus in one request."
    )

    embedder_target: str = Field(
        "127.0.0.1:50054",
        description="Address of embedder_svc; several, with commas or as dns:///host:port, share the calls.",
    )
    channel: ChannelSettings = Field(ChannelSettings(), description="Knobs of the channel to it.")
    embed_timeout_s: PositiveFloat = Field(2.0, description="Seconds that encoding queries may take.")
    rerank_timeout_s: PositiveFloat = Field(10.0, description="Seconds that a reranking may take.")
    patience: float = Field(
        0.5, gt=0, le=1, description="Share of the time left that a search waits for a stage it can do without."
    )
    hedging: HedgingSettings = Field(HedgingSettings(), description="Knobs of second attempts at encoding.")
    embedder_cooldown_s: PositiveFloat = Field(
        3.0, description="Seconds for which a replica of embedder_svc that failed, or took too long, is left alone."
    )
    resolve_s: PositiveFloat = Field(5.0, description="Seconds after which a name's addresses are asked for anew.")
    resolve_timeout_s: PositiveFloat = Field(2.0, description="Seconds that asking for a name's addresses may take.")

    candidates: PositiveInt = Field(
        100, le=2000, description="Least candidates of each half where the search does not say."
    )
    rerank_candidates: PositiveInt = Field(50, le=1000, description="Least candidates that the cross-encoder orders.")
    batch_concurrency: PositiveInt = Field(4, description="Searches of a BatchSearch that run at once.")

    max_document_chunks: PositiveInt = Field(10_000, le=16_384, description="Chunks of the largest document.")
    max_document_bytes: PositiveInt = Field(
        256 * _MIB, description="Bytes of text and vectors of the largest document."
    )
