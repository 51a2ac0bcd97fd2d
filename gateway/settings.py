"""Every knob of the gateway."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import SettingsConfigDict

from meshkit import replicas
from meshkit.settings import ChannelSettings, ServerSettings

_DAY_S = 24 * 3600


def _checked(target: str) -> str:
    replicas.parts(target)
    return target


class ReplicaSettings(BaseModel):
    """Knobs of the choice among several replicas of generator_svc."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    load_factor: float = Field(
        1.25, ge=1, description="Times the mean load, and an answer, up to which a session stays with its replica."
    )
    report_half_life_s: PositiveFloat = Field(2.0, description="Seconds after which a replica's report counts half.")
    cooldown_s: PositiveFloat = Field(
        1.0, description="Seconds that a replica that failed is left alone; doubles each time."
    )
    cooldown_max_s: PositiveFloat = Field(30.0, description="Most seconds that a replica is left alone.")
    poll_s: PositiveFloat = Field(1.0, description="Seconds between two questions how a replica stands.")
    poll_timeout_s: PositiveFloat = Field(1.0, description="Seconds that a replica has to say how it stands.")
    resolve_s: PositiveFloat = Field(5.0, description="Seconds after which a name's addresses are asked for anew.")
    resolve_timeout_s: PositiveFloat = Field(2.0, description="Seconds that asking for a name's addresses may take.")


class CacheSettings(BaseModel):
    """Knobs of the cache of answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(True, description="Whether answers are given again.")
    ttl_s: PositiveInt = Field(3600, description="Seconds that an answer may be given again.")
    similarity: float = Field(
        0.85,
        ge=0,
        le=1.01,
        description="Least cosine of two questions for one's answer to be the other's; above 1 only equal ones are.",
    )
    timeout_s: PositiveFloat = Field(0.5, description="Seconds that looking for an answer may take.")
    max_answers: PositiveInt = Field(10_000, description="Answers that are kept of one tenant.")
    max_questions: PositiveInt = Field(1000, description="Questions of a collection that one is compared with.")
    max_collections: PositiveInt = Field(64, description="Collections whose questions a gateway has in memory.")
    max_answer_bytes: PositiveInt = Field(512 * 1024, description="Bytes of the largest answer, with its chunks, kept.")
    max_filling: PositiveInt = Field(128, description="Answers being kept at once; the next ones are not.")
    memory_bytes: PositiveInt = Field(64 * 1024 * 1024, description="Bytes of answers that a gateway has in memory.")


class ResumeSettings(BaseModel):
    """Knobs of what is written down of answers, and of their going on without a reader."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_linger_s: float = Field(60.0, ge=0, description="Most seconds that an answer goes on without a reader.")
    max_lingering: int = Field(256, ge=0, description="Answers that do so at once; the next ones end.")
    journal_ttl_s: PositiveInt = Field(_DAY_S, description="Seconds that an answer's events and prompt are kept.")
    journal_flush_s: PositiveFloat = Field(0.1, description="Seconds between two writings of what is new.")
    journal_patience_s: float = Field(
        10.0, ge=0, description="Seconds after an answer's end for which a Redis that is away is waited for."
    )
    producer_ttl_s: PositiveFloat = Field(
        3.0, description="Seconds after which a gateway that is silent counts as dead, and its answers as lost."
    )


class PlanSettings(BaseModel):
    """Knobs of what precedes the writing of an answer, and of what follows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    consult_timeout_s: PositiveFloat = Field(
        3.0, description="Most seconds that the language model is asked for a plan, a query, a passage or a verdict."
    )
    max_retrieval_rounds: int = Field(
        1, ge=0, le=8, description="Searches after the first where what was found looks weak; 0 asks for no verdict."
    )
    max_tool_rounds: int = Field(3, ge=1, description="Times that an answer calls tools, several at once each time.")
    reserve_s: float = Field(
        0.25, ge=0, description="Seconds before its caller's deadline that an answer ends, a quarter of all at most."
    )
    summary_timeout_s: PositiveFloat = Field(30.0, description="Seconds that summarising older turns may take.")
    max_summaries: PositiveInt = Field(4, description="Conversations that are summarised at once.")


class Settings(ServerSettings):
    """Read from RAGMESH_GATEWAY_*."""

    model_config = SettingsConfigDict(env_prefix="RAGMESH_GATEWAY_")

    listen: str = Field("127.0.0.1:50051", description="Address to serve gRPC on, host:port.")
    metrics_listen: str = Field("127.0.0.1:9101", description="Address to serve Prometheus metrics on; empty for none.")
    default_deadline_s: PositiveFloat = Field(300.0, description="Seconds for a call that brings no deadline.")

    retriever_target: str = Field("127.0.0.1:50052", description="Address of retriever_svc, any gRPC name.")
    generator_target: Annotated[str, AfterValidator(_checked)] = Field(
        "127.0.0.1:50053",
        description="Address of generator_svc, any gRPC name; or its replicas: a list with commas of addresses and of "
        "dns:///host:port for every address that a name has, a Kubernetes headless service's for instance.",
    )
    embedder_target: str = Field("127.0.0.1:50054", description="Address of embedder_svc, any gRPC name.")
    ingest_target: str = Field("127.0.0.1:50055", description="Address of ingest_svc, any gRPC name.")
    channel: ChannelSettings = Field(ChannelSettings(), description="Knobs of the channels to them.")

    replicas: ReplicaSettings = Field(ReplicaSettings(), description="Knobs of the choice where it has replicas.")

    redis_url: str = Field("redis://127.0.0.1:6390/0", description="URL of the Redis that keeps the sessions.")
    redis_timeout_s: PositiveFloat = Field(1.0, description="Seconds that an operation of Redis may take.")
    redis_max_connections: PositiveInt = Field(64, description="Connections to Redis.")

    session_ttl_s: PositiveInt = Field(30 * _DAY_S, description="Seconds after its last turn that a session is kept.")
    max_session_turns: PositiveInt = Field(200, description="Turns of a session that are kept.")
    max_sessions: PositiveInt = Field(1000, description="Sessions that are kept of one caller.")
    answer_ttl_s: PositiveInt = Field(30 * _DAY_S, description="Seconds that an answer is kept.")
    max_feedback: PositiveInt = Field(100_000, description="Entries of feedback that are kept of one tenant.")
    save_timeout_s: PositiveFloat = Field(2.0, description="Seconds that keeping an answer may take.")
    cache: CacheSettings = Field(CacheSettings(), description="Knobs of the cache of answers.")
    resume: ResumeSettings = Field(ResumeSettings(), description="Knobs of taking answers up again.")

    top_k: PositiveInt = Field(8, le=100, description="Chunks to answer from where the question does not say.")
    history_turns: PositiveInt = Field(8, description="Turns of the conversation that the model is shown.")
    history_tokens: PositiveInt = Field(
        2048, description="Tokens of them, of four bytes each; at most a quarter of the model's context."
    )
    plan: PlanSettings = Field(PlanSettings(), description="Knobs of planning, searching again and summarising.")
    max_answer_tokens: PositiveInt = Field(1024, description="Tokens of an answer where the question does not say.")
    min_grounding: float = Field(
        0.5, gt=0, le=1, description="Score of 0 to 1 from which a passage counts as support of a sentence."
    )
    models_ttl_s: PositiveFloat = Field(10.0, description="Seconds after which the generator's models are asked anew.")

    tool_timeout_s: PositiveFloat = Field(10.0, description="Seconds that a tool of the mesh's own may take.")
    caller_tool_timeout_s: PositiveFloat = Field(60.0, description="Seconds that a tool of the caller's may take.")
    max_tool_calls: int = Field(8, ge=0, description="Calls of tools that an answer may make.")
    max_tool_result_bytes: PositiveInt = Field(16384, description="Bytes of a tool's result that are read.")
    web_search_url: str = Field("https://api.tavily.com/search", description="URL of a web search like Tavily's.")
    web_search_key: SecretStr = Field(SecretStr(""), description="Key for it; without one the web is not searched.")
    max_web_search_bytes: PositiveInt = Field(1_048_576, description="Bytes that it may answer with.")
    max_web_searches: PositiveInt = Field(32, description="Searches of the web at the same time.")

    heartbeat_s: PositiveFloat = Field(10.0, description="Seconds of silence after which a heartbeat is sent.")
    hold_s: float = Field(
        0.5,
        ge=0,
        description="Most seconds that the first events wait for the search, which may still fail plainly.",
    )
    buffer_events: int = Field(64, ge=16, description="Events that wait for a slow caller before the engine does.")
    status_timeout_s: PositiveFloat = Field(1.0, description="Seconds that a server has to say how it is.")
