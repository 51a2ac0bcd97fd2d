"""An S3 for tests: moto's server on a free port, in this process, written to over plain HTTP."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from urllib.parse import quote

import httpx
from moto.server import ThreadedMotoServer

BUCKET = "team-docs"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}

# moto wants some signature and checks none.
_SIGNED = {"authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, Signature=0"}


@dataclass
class S3:
    """A running S3 with the bucket `team-docs`; it can be stopped, and started again with all it had."""

    server: ThreadedMotoServer
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, key: str, data: bytes) -> None:
        """Put an object into the bucket."""
        httpx.put(self._at(key), content=data, headers=_SIGNED).raise_for_status()

    def get(self, key: str) -> bytes:
        """An object's bytes."""
        return httpx.get(self._at(key), headers=_SIGNED).raise_for_status().content

    def remove(self, key: str) -> None:
        """Remove an object."""
        httpx.delete(self._at(key), headers=_SIGNED).raise_for_status()

    def keys(self) -> list[str]:
        """The keys in the bucket."""
        listed = httpx.get(f"{self.url}/{BUCKET}?list-type=2", headers=_SIGNED).raise_for_status().text
        return [unescape(key) for key in re.findall("<Key>(.*?)</Key>", listed)]

    def empty(self) -> None:
        """Forget all, and make the bucket anew."""
        httpx.post(f"{self.url}/moto-api/reset").raise_for_status()
        httpx.put(f"{self.url}/{BUCKET}").raise_for_status()

    def stop(self) -> None:
        """Go away, for a while or for good."""
        self.server.stop()

    def start(self) -> None:
        """Come back on the same port."""
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self.server.start()

    def _at(self, key: str) -> str:
        return f"{self.url}/{BUCKET}/{quote(key)}"


@contextmanager
def open_s3() -> Iterator[S3]:
    """An S3, for as long as the body runs."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    s3 = S3(server, server.get_host_and_port()[1])
    try:
        yield s3
    finally:
        s3.stop()
