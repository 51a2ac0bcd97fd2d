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
    """All that is in it arrives, of whatever type it is said to be; nothing of the path is overwritten by it."""
    path = "/v1/collections/handbook:receiveObjectEvents"
    other = {"Event": "s3:TestEvent", "collection": "collections/other", "more": [None, True]}
    for body, kind in ((NOTIFICATION, "application/json"), (NOTIFICATION, "text/plain; charset=UTF-8"), (other, "")):
        headers = edge.bearer | ({"content-type": kind} if kind else {})
        answer = await edge.http.post(path, content=json.dumps(body), headers=headers)
        assert answer.status_code == 200, answer.text
        (job,) = answer.json()["jobs"]
        assert job["collection"] == "collections/handbook"
        assert json.loads(job["source_uri"]) == body
