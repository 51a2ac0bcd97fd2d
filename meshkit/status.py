"""The errors of the tree as `google.rpc.Status`, and back."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from meshkit import errors

_Detail = TypeVar("_Detail", bound=Message)

DOMAIN = "ragmesh"
DETAILS_KEY = "grpc-status-details-bin"
# A status travels in HTTP/2 trailers, which peers cut off at 8 KiB: what does not fit would lose the whole error.
_MAX_TEXT_CHARS = 512
_MAX_VIOLATIONS = 8
_MAX_DESCRIPTION_CHARS = 160
_MAX_METADATA_ITEMS = 16

_MEMBERS: dict[str, type[errors.MeshError]] = {
    member.code: member for member in errors.MeshError.__subclasses__()
}
_CODES: dict[str, grpc.StatusCode] = {code: grpc.StatusCode[code] for code in _MEMBERS}

# What a failed call means where its server sent no details: the transport or a proxy spoke, and its words may tell
# of things that are not the caller's business. A server of ours that fails always sends details, so INTERNAL and
# UNKNOWN without them mean that it died while answering.
_UNANSWERED = (errors.Unavailable, "PEER_UNAVAILABLE", "a service that this call needs does not answer")
_BARE: dict[grpc.StatusCode, tuple[type[errors.MeshError], str, str]] = {
    grpc.StatusCode.UNAVAILABLE: _UNANSWERED,
    grpc.StatusCode.INTERNAL: _UNANSWERED,
    grpc.StatusCode.UNKNOWN: _UNANSWERED,
    grpc.StatusCode.DEADLINE_EXCEEDED: (errors.DeadlineExceeded, "DEADLINE_EXCEEDED", "the time is used up"),
    grpc.StatusCode.CANCELLED: (errors.Cancelled, "CANCELLED", "the call was cancelled"),
    grpc.StatusCode.UNIMPLEMENTED: (errors.Unimplemented, "NOT_IMPLEMENTED", "the server lacks the method"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        errors.ResourceExhausted,
        "OVERLOADED",
        "the server takes no more work",
    ),
    grpc.StatusCode.UNAUTHENTICATED: (
        errors.Unauthenticated,
        "IDENTITY_MISSING",
        "the call carries no identity",
    ),
}
_FAULT = (errors.Internal, "INTERNAL_ERROR", "internal error")


def grpc_code(error: errors.MeshError) -> grpc.StatusCode:
    """The status code under which the error crosses the wire."""
    return _CODES[error.code]


def to_status(error: errors.MeshError) -> status_pb2.Status:
    """The error with its details, kept small enough for HTTP/2 trailers."""
    number: int = grpc_code(error).value[0]
    details = [_packed(detail) for detail in _details(error)]
    return status_pb2.Status(code=number, message=error.message[:_MAX_TEXT_CHARS], details=details)


def _packed(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed


def _details(error: errors.MeshError) -> Iterator[Message]:
    metadata = {
        key: value[:_MAX_TEXT_CHARS] for key, value in list(error.metadata.items())[:_MAX_METADATA_ITEMS]
    }
    yield error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    if error.violations:
        yield error_details_pb2.BadRequest(field_violations=_violations(error.violations))
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        yield error_details_pb2.RetryInfo(retry_delay=delay)
    if error.reason == "QUOTA_EXHAUSTED":
        subject, text = error.metadata.get("quota", ""), error.message[:_MAX_TEXT_CHARS]
        violation = error_details_pb2.QuotaFailure.Violation(subject=subject, description=text)
        yield error_details_pb2.QuotaFailure(violations=[violation])
    if error.resource is not None:
        name = error.resource.name[:_MAX_TEXT_CHARS]
        yield error_details_pb2.ResourceInfo(resource_type=error.resource.type, resource_name=name)


def _violations(
    violations: Iterable[errors.FieldViolation],
) -> list[error_details_pb2.BadRequest.FieldViolation]:
    return [
        error_details_pb2.BadRequest.FieldViolation(
            field=violation.field[:_MAX_DESCRIPTION_CHARS],
            description=violation.description[:_MAX_DESCRIPTION_CHARS],
        )
        for violation in list(violations)[:_MAX_VIOLATIONS]
    ]


def from_rpc_error(error: grpc.aio.AioRpcError, peer: str = "") -> errors.MeshError:
    """The error that a peer sent, with its details; one that carries none of ours gets fixed words.

    `peer` names the service called and goes into the metadata of errors that the transport made.
    """
    details = dict(error.trailing_metadata() or ()).get(DETAILS_KEY)
    sent = _from_details(details) if isinstance(details, bytes) else None
    return sent or _from_bare(error, peer)


def _from_bare(error: grpc.aio.AioRpcError, peer: str) -> errors.MeshError:
    if "message larger than max" in (error.details() or ""):
        return errors.ResourceExhausted("TOO_LARGE", "a message is larger than its receiver takes")
    member, reason, message = _BARE.get(error.code(), _FAULT)
    return member(reason, message, metadata={"peer": peer} if peer else {})


def _from_details(value: bytes) -> errors.MeshError | None:
    """The error in the trailer's bytes, or None where it is not one of ours."""
    try:
        status = status_pb2.Status.FromString(value)
    except DecodeError:
        return None
    info = _unpacked(status, error_details_pb2.ErrorInfo())
    member = _MEMBERS.get(_name(status.code))
    if info is None or info.domain != DOMAIN or member is None:
        return None
    bad = _unpacked(status, error_details_pb2.BadRequest()) or error_details_pb2.BadRequest()
    retry = _unpacked(status, error_details_pb2.RetryInfo())
    named = _unpacked(status, error_details_pb2.ResourceInfo())
    return member(
        info.reason,
        status.message,
        metadata=info.metadata,
        violations=[errors.FieldViolation(v.field, v.description) for v in bad.field_violations],
        retry_after_s=retry.retry_delay.ToMilliseconds() / 1000 if retry else None,
        resource=errors.Resource(named.resource_type, named.resource_name) if named else None,
    )


def _name(number: int) -> str:
    return next((code for code, status in _CODES.items() if status.value[0] == number), "")


def _unpacked(status: status_pb2.Status, detail: _Detail) -> _Detail | None:
    """`detail` filled from the first of the status's details that has its type."""
    return next((detail for packed in status.details if packed.Unpack(detail)), None)
