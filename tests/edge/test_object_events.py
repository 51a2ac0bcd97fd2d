"""Object stores' notifications through the edge: the body of the request is what the store sends."""

import json

import pytest

from tests.edge.running import Edge

pytestmark = pytest.mark.asyncio(loop_scope="session")

# As Amazon documents it, cut short.
NOTIFICATION = {
    "Records": [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventTime": "1970-01-01T00:00:00.000Z",
            "eventName": "ObjectCreated:Put",
            "requestParameters": {"sourceIPAddress": "127.0.0.1"},
            "s3": {
                "s3SchemaVersion": "1.0",
                "bucket": {"name": "team-docs", "ownerIdentity": {"principalId": "A3NL1KOZZKExample"}},
                "object": {"key": "handbook/a+page%20%C3%A9.md", "size": 1024, "sequencer": "0055AED6DCD90281E5"},
            },
        }
    ]
}


async def test_a_notification_is_taken_as_the_store_sends_it(edge: Edge) -> None:
    """Lists, nulls and numbers in it arrive, and nothing of the path can be overwritten by it."""
    path = "/v1/collections/handbook:receiveObjectEvents"
    for body in (NOTIFICATION, {"Event": "s3:TestEvent", "collection": "collections/other", "more": [None, True]}):
        answer = await edge.http.post(path, json=body, headers=edge.bearer)
        assert answer.status_code == 200, answer.text
        (job,) = answer.json()["jobs"]
        assert job["collection"] == "collections/handbook"
        assert json.loads(job["source_uri"]) == body
