"""Settings that every server and channel has, and how settings are read: once, from the environment."""

import os
import sys
from collections.abc import Iterator
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

_NESTING = "__"
_MIB = 1024 * 1024


class ServerSettings(BaseSettings):
    """Knobs of a server; a service adds its own and sets `env_prefix`, `RAGMESH_EMBEDDER_` for instance."""

    model_config = SettingsConfigDict(frozen=True, env_prefix="RAGMESH_SERVER_", env_nested_delimiter=_NESTING)

    listen: str = Field("127.0.0.1:0", description="Address to serve gRPC on, host:port; port 0 takes a free one.")
    metrics_listen: str = Field(
        "127.0.0.1:0", description="Address to serve Prometheus metrics on, host:port; empty for none."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    log_format: Literal["json", "text"] = Field("json", description="Form of a log line.")
    otlp_endpoint: str = Field("", description="OTLP gRPC collector for traces, host:port; empty for no export.")
    otlp_timeout_s: PositiveFloat = Field(2.0, description="Seconds that sending a batch of traces may take.")
    default_deadline_s: PositiveFloat = Field(60.0, description="Seconds for a call that brings no deadline.")
    max_deadline_s: PositiveFloat = Field(3600.0, description="Seconds that a call may take, whatever it asks.")
    max_stall_s: PositiveFloat = Field(
        60.0, description="Seconds for which the reader of a stream may take nothing before it is cut off."
    )
    drain_notice_s: float = Field(
        0.0, ge=0, description="Seconds between NOT_SERVING and refusing calls, for balancers to notice."
    )
    drain_grace_s: float = Field(20.0, ge=0, description="Seconds that running calls have to end when draining.")
    cleanup_timeout_s: PositiveFloat = Field(5.0, description="Seconds that calls cut off then have to clean up.")
    max_message_bytes: PositiveInt = Field(16 * _MIB, description="Bytes of the largest message taken.")
    max_concurrent_rpcs: PositiveInt = Field(1024, description="Calls served at once; more are refused.")
    overload_retry_after_s: PositiveFloat = Field(1.0, description="Seconds after which a refused caller may retry.")
    probe_interval_s: PositiveFloat = Field(2.0, description="Seconds between two rounds of the health probes.")
    probe_timeout_s: PositiveFloat = Field(2.0, description="Seconds after which a health probe has failed.")
    min_ping_interval_s: PositiveFloat = Field(
        5.0, description="Seconds between keepalive pings below which a caller is cut off."
    )

    @property
    def process(self) -> str:
        """The process's name: the package that the settings belong to."""
        return type(self).__module__.partition(".")[0]


class ChannelSettings(BaseModel):
    """Knobs of a channel to a peer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_message_bytes: PositiveInt = Field(32 * _MIB, description="Bytes of the largest message taken.")
    default_deadline_s: PositiveFloat = Field(30.0, description="Seconds for a call made while none is served.")
    deadline_margin_s: float = Field(0.01, ge=0, description="Seconds by which a peer's deadline is earlier than ours.")
    keepalive_s: PositiveFloat = Field(20.0, description="Seconds of silence after which the peer is pinged.")
    keepalive_timeout_s: PositiveFloat = Field(5.0, description="Seconds that a ping's answer may take.")
    retry_attempts: int = Field(3, ge=1, le=5, description="Attempts of a call while the peer is UNAVAILABLE.")
    retry_backoff_s: PositiveFloat = Field(0.05, description="Seconds before the first retry; doubles each time.")
    retry_backoff_max_s: PositiveFloat = Field(1.0, description="Most seconds before a retry.")
    reconnect_backoff_max_s: PositiveFloat = Field(2.0, description="Most seconds before a lost peer is tried again.")


_Settings = TypeVar("_Settings", bound=ServerSettings)


def load(settings_class: type[_Settings]) -> _Settings:
    """The settings from the environment; where any is wrong, names it on stderr and exits with 2."""
    problems = list(_unknown_variables(settings_class))
    settings: _Settings | None = None
    try:
        settings = settings_class()
    except ValidationError as error:
        wrong = error.errors(include_input=False)
        problems += [f"{_variable(settings_class, *item['loc'])}: {item['msg']}" for item in wrong]
    except SettingsError as error:
        # pydantic-settings names the field only in its text; the value is not in it.
        problems.append(str(error))
    if problems or settings is None:
        sys.stderr.write("".join(f"{problem}\n" for problem in problems))
        raise SystemExit(2)
    return settings


def _variable(settings_class: type[ServerSettings], *path: str | int) -> str:
    return _prefix(settings_class) + _NESTING.join(str(part) for part in path).upper()


def _prefix(settings_class: type[ServerSettings]) -> str:
    return settings_class.model_config.get("env_prefix", "").upper()


def _unknown_variables(settings_class: type[ServerSettings]) -> Iterator[str]:
    prefix = _prefix(settings_class)
    known = {_variable(settings_class, field) for field in settings_class.model_fields}
    for variable in sorted(os.environ) if prefix else ():
        name = variable.upper()
        if name.startswith(prefix) and prefix + name.removeprefix(prefix).partition(_NESTING)[0] not in known:
            yield f"{variable}: no such setting"
