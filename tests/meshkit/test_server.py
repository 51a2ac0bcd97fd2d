"""A server over a real loopback channel."""

from typing import Any

import grpc
import pytest

from meshkit.testing import connect, serve
from tests.meshkit.probe import ALICE, KINDS, Echo, app_of, invoke


@pytest.mark.parametrize("kind", KINDS)
async def test_answers(wire: Any, kind: str) -> None:
    """A call of each kind reaches its handler and its answer comes back."""
    async with serve(app_of(wire, Echo(wire))) as address, connect(address, ALICE) as channel:
        responses = await invoke(channel, wire, kind, wire.ProbeRequest(text="hello", number=1))
    assert [response.text for response in responses] == ["hello"]
