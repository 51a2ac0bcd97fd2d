"""Questions to the handbook, and what came of them."""

from collections.abc import AsyncIterable
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from ragmesh.gateway.v1 import answers_pb2, events_pb2


def ask(question: str = "How long is leave?", **fields: Any) -> answers_pb2.AskRequest:
    """A question to the handbook."""
    return answers_pb2.AskRequest(**{"question": question, "collection": "collections/handbook", **fields})


def once(question: str = "How long is leave?", **fields: Any) -> answers_pb2.AskOnceRequest:
    """The same for AskOnce."""
    return answers_pb2.AskOnceRequest(ask=ask(question, **fields))


async def heard(call: AsyncIterable[Any]) -> list[events_pb2.AnswerEvent]:
    """All of an answer's events."""
    return [response.event async for response in call]


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The status that an error carries."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type] # typed for the synchronous API
    assert isinstance(status, status_pb2.Status)
    return status


def info_of(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    """The published reason of a status, with its metadata."""
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


def reason(error: grpc.aio.AioRpcError) -> str:
    """The published reason that an error carries."""
    return info_of(status_of(error)).reason
