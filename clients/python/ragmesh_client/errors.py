"""What can go wrong with a call.

    RagmeshError
    ├── InvalidRequestError   the request cannot be carried out as it stands
    ├── NotAllowedError       no valid token, or not the scope that the call needs
    ├── NotFoundError         what the call names does not exist
    ├── OverloadedError       a limit is reached; `retry_after_s` says when to come back
    ├── TimedOutError         the time allowed is used up
    └── UnavailableError      a part of the mesh does not answer, or died in mid-stream

Every error carries the published reason (`ragmesh.common.v1.ErrorReason` without its prefix).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(eq=False)
class RagmeshError(Exception):
    """A call failed."""

    code: grpc.StatusCode
    """The gRPC status code."""
    reason: str
    """The published reason; empty where the failure has none."""
    message: str
    """What happened, in words."""
    metadata: dict[str, str] = field(default_factory=dict)
    """What the reason is about, as published with it."""
    violations: dict[str, str] = field(default_factory=dict)
    """What is wrong with each field of the request."""
    retry_after_s: float | None = None
    """When to come back."""

    def __str__(self) -> str:
        fields = "".join(f"; {name}: {what}" for name, what in self.violations.items())
        return f"{self.reason or self.code.name}: {self.message}{fields}"


class InvalidRequestError(RagmeshError):
    """The request cannot be carried out as it stands."""


class NotAllowedError(RagmeshError):
    """No valid token, or not the scope that the call needs."""


class NotFoundError(RagmeshError):
    """What the call names does not exist."""


class OverloadedError(RagmeshError):
    """A limit is reached; `retry_after_s` says when to come back."""


class TimedOutError(RagmeshError):
    """The time allowed is used up."""


class UnavailableError(RagmeshError):
    """A part of the mesh does not answer, or died in mid-stream."""


_BY_CODE: dict[grpc.StatusCode, type[RagmeshError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.FAILED_PRECONDITION: InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
    grpc.StatusCode.ALREADY_EXISTS: InvalidRequestError,
    grpc.StatusCode.UNAUTHENTICATED: NotAllowedError,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowedError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: TimedOutError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
}


@dataclass
class _Details:
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None


@contextmanager
def translated() -> Iterator[None]:
    """Turns gRPC's errors into those of this module."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error


def keep_servers_status(call: Any) -> None:
    """Let a call that sends a stream end with the server's status, also where that came during a write.

    Where a message cannot be written any more, because the server has refused the call, grpc.aio sets INTERNAL as the
    call's status and forgets the server's. Without that the failed write waits for the server's status and raises it.
    """
    if hasattr(call, "_cython_call"):
        call._cython_call = _Core(call._cython_call)  # noqa: SLF001 - nothing public reaches it


class _Core:
    """gRPC's core of a call, but for the status of a failed write; lives as long as the call."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def set_internal_error(self, _details: str) -> None:
        """Leave the status to the server."""


def from_rpc_error(error: grpc.aio.AioRpcError) -> RagmeshError:
    """The error of a failed call.

    A stream that Envoy resets because the server behind it died arrives as INTERNAL with no details: that is
    UNAVAILABLE, as it is for callers who had not read anything yet.
    """
    code, message = error.code(), error.details() or ""
    status = status_pb2.Status()
    trailers: dict[str, Any] = dict(error.trailing_metadata() or ())
    status.ParseFromString(trailers.get(_DETAILS_KEY, b""))
    details = _read(status)
    if code is grpc.StatusCode.INTERNAL and not details.reason:
        code, message = grpc.StatusCode.UNAVAILABLE, "the stream was cut off"
    if code is grpc.StatusCode.UNAVAILABLE and not details.reason:
        details.reason = "PEER_UNAVAILABLE"
    return _build(code, message, details)


def from_status(status: status_pb2.Status) -> RagmeshError:
    """The error of a `google.rpc.Status` that came as data."""
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    return _build(code, status.message, _read(status))


def cut_off() -> UnavailableError:
    """The error of a stream that ended without its last event."""
    return UnavailableError(grpc.StatusCode.UNAVAILABLE, "PEER_UNAVAILABLE", "the stream was cut off")


def _build(code: grpc.StatusCode, message: str, details: _Details) -> RagmeshError:
    kind = _BY_CODE.get(code, RagmeshError)
    return kind(code, details.reason, message, details.metadata, details.violations, details.retry_after_s)


def _read(status: status_pb2.Status) -> _Details:
    details = _Details()
    info, bad, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    for packed in status.details:
        if packed.Unpack(info):
            details.reason, details.metadata = info.reason, dict(info.metadata)
        elif packed.Unpack(bad):
            details.violations = {violation.field: violation.description for violation in bad.field_violations}
        elif packed.Unpack(retry):
            details.retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    return details
