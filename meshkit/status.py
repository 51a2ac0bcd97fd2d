"""The errors of the tree as `google.rpc.Status`, and back."""

from collections.abc import Iterable, Iterator
from itertools import islice
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
# A status travels in HTTP/2 trailers, in base64, and gRPC drops trailers of more than 8 KiB with all that is
# in them. These bounds keep the largest under 7 KiB.
_MAX_TEXT_BYTES = 192
_MAX_MESSAGE_BYTES = 256
_MAX_METADATA_ITEMS = 8
_MAX_VIOLATIONS = 6

_MEMBERS: dict[str, type[errors.MeshError]] = {member.code: member for member in errors.MeshError.__subclasses__()}
_CODES: dict[str, grpc.StatusCode] = {code: grpc.StatusCode[code] for code in _MEMBERS}

# What a failed call means where its server sent no details: the transport or a proxy spoke, and its words may
# tell of things that are not the caller's business. A server of ours that fails always sends details, so
# INTERNAL and UNKNOWN without them mean that it died while answering.
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
    """The error with its details, texts cut and lists shortened so that the whole fits HTTP/2 trailers."""
    number: int = grpc_code(error).value[0]
    details = [_packed(detail) for detail in _details(error)]
    return status_pb2.Status(code=number, message=_cut(error.message, _MAX_MESSAGE_BYTES), details=details)


def _packed(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed


def _cut(text: str, max_bytes: int = _MAX_TEXT_BYTES) -> str:
    return text.encode(errors="replace")[:max_bytes].decode(errors="ignore")


def _details(error: errors.MeshError) -> Iterator[Message]:
    metadata = {_cut(key): _cut(value) for key, value in islice(error.metadata.items(), _MAX_METADATA_ITEMS)}
    yield error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    if error.violations:
        yield _bad_request(error.violations[:_MAX_VIOLATIONS])
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        yield error_details_pb2.RetryInfo(retry_delay=delay)
    if error.reason == "QUOTA_EXHAUSTED":
        quota, said = error.metadata.get("quota", ""), error.message
        violation = error_details_pb2.QuotaFailure.Violation(subject=_cut(quota), description=_cut(said))
        yield error_details_pb2.QuotaFailure(violations=[violation])
    if error.resource is not None:
        kind, name = _cut(error.resource.type), _cut(error.resource.name)
        yield error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name)


def _bad_request(violations: Iterable[errors.FieldViolation]) -> error_details_pb2.BadRequest:
    bad = error_details_pb2.BadRequest()
    for violation in violations:
        bad.field_violations.add(field=_cut(violation.field), description=_cut(violation.description))
    return bad


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
