"""How the small mesh lets in and refuses."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

TOKEN = "let-me-in"  # a token of this test mesh only


def status(
    code: grpc.StatusCode, reason: str, message: str, violations: dict[str, str] | None = None
) -> status_pb2.Status:
    """A status with ErrorInfo and, where given, field violations."""
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=reason, domain="ragmesh")]
    if violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=name, description=what)
            for name, what in violations.items()
        ]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code.value[0], message=message, details=packed)


def with_metadata(refusal: status_pb2.Status, **metadata: str) -> status_pb2.Status:
    """The status, its ErrorInfo about these things."""
    info = error_details_pb2.ErrorInfo()
    refusal.details[0].Unpack(info)
    info.metadata.update(metadata)
    refusal.details[0].Pack(info)
    return refusal


async def refuse(context: Any, refusal: status_pb2.Status) -> None:
    """Ends the call with a status."""
    await context.abort_with_status(rpc_status.to_status(refusal))


async def check_token(context: Any) -> None:
    """Refuses a call without the token."""
    if dict(context.invocation_metadata()).get("authorization") != f"Bearer {TOKEN}":
        await refuse(context, status(grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_INVALID", "no valid token"))
