"""What a failed call tells: read from its trailers as callers do."""

from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from meshkit.status import DETAILS_KEY


def reason_of(status: Any) -> str:
    """The published reason in a status."""
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


def failure_of(error: grpc.aio.AioRpcError) -> tuple[str, str, list[str]]:
    """The code, the reason and the fields named bad of a failed call."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())[DETAILS_KEY])
    bad = error_details_pb2.BadRequest()
    fields = [each.field for detail in status.details if detail.Unpack(bad) for each in bad.field_violations]
    return error.code().name, reason_of(status), fields
