"""The Python client of ragmesh: questions, searches and documents over gRPC, through Envoy.

async with Client() as client:
async for event in client.ask("How much leave do I have?", collection="handbook"):
if isinstance(event, Token):
print(event.text, end="")
"""

from ragmesh_client.client import Client
from ragmesh_client.errors import (
    InvalidRequestError,
    NotAllowedError,
    NotFoundError,
    OverloadedError,
    RagmeshError,
    TimedOutError,
    UnavailableError,
)
from ragmesh_client.events import (
    Cited,
    Event,
    Failed,
    Final,
    Grounded,
    Heartbeat,
    Retrieved,
    StageChanged,
    Started,
    Token,
    ToolAnswered,
    ToolCalled,
    Used,
)
from ragmesh_client.uploads import FileProgress

__all__ = [
    "Cited",
    "Client",
    "Event",
    "Failed",
    "FileProgress",
    "Final",
    "Grounded",
    "Heartbeat",
    "InvalidRequestError",
    "NotAllowedError",
    "NotFoundError",
    "OverloadedError",
    "RagmeshError",
    "Retrieved",
    "StageChanged",
    "Started",
    "TimedOutError",
    "Token",
    "ToolAnswered",
    "ToolCalled",
    "UnavailableError",
    "Used",
]
