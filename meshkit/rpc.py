"""The call being served, for whoever logs, traces or calls on during it."""

import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True)
class Rpc:
    """A call: its service's full name, its method's name, and the id that every hop shares."""

    service: str
    method: str
    request_id: str

    @property
    def name(self) -> str:
        """`package.Service/Method`."""
        return f"{self.service}/{self.method}"


_current: ContextVar[Rpc | None] = ContextVar("rpc", default=None)


def current() -> Rpc | None:
    """The call being served, or None outside of one."""
    return _current.get()


@contextmanager
def serving(rpc: Rpc) -> Iterator[None]:
    """Make the call current."""
    token = _current.set(rpc)
    try:
        yield
    finally:
        _current.reset(token)


def from_wire(path: str, metadata: Mapping[str, str | bytes]) -> Rpc:
    """The call to `/package.Service/Method`, with the caller's request id or, for want of one, a new one."""
    service, _, method = path.removeprefix("/").rpartition("/")
    given = metadata.get(REQUEST_ID_KEY)
    kept = isinstance(given, str) and _REQUEST_ID.fullmatch(given)
    return Rpc(service, method, str(given) if kept else uuid.uuid4().hex)
