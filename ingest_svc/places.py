"""Places in object stores, by URL; a key stands in it as it is, with no escapes to read."""

import re
from dataclasses import dataclass

_URL = re.compile(r"(s3|gs|az)://([a-z0-9][a-z0-9._-]{1,62})(?:/([^\x00-\x1f\x7f]*))?")


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket (with Azure a container) of the store `s3`, `gs` or `az`, and a prefix in it without outer slashes."""

    scheme: str
    bucket: str
    prefix: str = ""

    @property
    def url(self) -> str:
        """`s3://bucket/prefix`; without slash at its end."""
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, path: str) -> str:
        """The key of what is at `path` below the place."""
        return f"{self.prefix}/{path}" if self.prefix else path

    def path(self, key: str) -> str:
        """The path below the place of the object with a key."""
        return key.removeprefix(f"{self.prefix}/") if self.prefix else key

    def contains(self, other: "Place") -> bool:
        """Whether the other is this place or below it."""
        same = (self.scheme, self.bucket) == (other.scheme, other.bucket)
        return same and f"{other.url}/".startswith(f"{self.url}/")


def parse_place(url: str) -> Place:
    """The place at a URL; raises ValueError for one that names none, or has empty, `.` or `..` parts."""
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError(f"{url!r} is no s3://, gs:// or az:// URL of a bucket")
    scheme, bucket, key = found.groups(default="")
    prefix = key.removesuffix("/")
    if key and any(part in ("", ".", "..") for part in prefix.split("/")):
        raise ValueError(f"{url!r} has empty, `.` or `..` parts")
    return Place(scheme, bucket, prefix)
