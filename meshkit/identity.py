"""Who a call acts for: the tenant, the subject and the scopes that the edge vouches for."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from meshkit.errors import PermissionDenied, Unauthenticated

TENANT_KEY = "x-ragmesh-tenant"
SUBJECT_KEY = "x-ragmesh-subject"
SCOPES_KEY = "x-ragmesh-scopes"

_FORMS = {
    TENANT_KEY: re.compile(r"[a-z0-9][a-z0-9-]{0,62}"),
    SUBJECT_KEY: re.compile(r"[!-~]{1,256}"),
    SCOPES_KEY: re.compile(r"[ -~]{0,2048}"),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """On whose behalf a call is made."""

    tenant: str
    subject: str
    scopes: frozenset[str] = frozenset()


_current: ContextVar[Identity | None] = ContextVar("identity", default=None)


def current() -> Identity:
    """The identity of the call being served; raises Unauthenticated where there is none."""
    identity = _current.get()
    if identity is None:
        raise Unauthenticated("IDENTITY_MISSING", "the call carries no identity")
    return identity


def current_or_none() -> Identity | None:
    """The identity of the call being served, or None outside of one."""
    return _current.get()


@contextmanager
def acting_as(identity: Identity) -> Iterator[None]:
    """Make the identity current: for workers that go on with a tenant's work after its call has ended."""
    token = _current.set(identity)
    try:
        yield
    finally:
        _current.reset(token)


def require_scope(scope: str) -> None:
    """Raise PermissionDenied unless the current identity has the scope."""
    if scope not in current().scopes:
        message = f"the caller lacks the scope {scope}"
        raise PermissionDenied("SCOPE_MISSING", message, metadata={"scope": scope})


def to_metadata(identity: Identity) -> list[tuple[str, str]]:
    """The metadata that carries the identity to a peer."""
    scopes = " ".join(sorted(identity.scopes))
    return [(TENANT_KEY, identity.tenant), (SUBJECT_KEY, identity.subject), (SCOPES_KEY, scopes)]


def from_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> Identity:
    """The identity in a call's metadata; raises Unauthenticated where it is missing or not of its form."""
    values: dict[str, str] = {}
    for key, value in metadata:
        if key in _FORMS:
            values[key] = _checked(key, value, values)
    if TENANT_KEY not in values or SUBJECT_KEY not in values:
        raise Unauthenticated("IDENTITY_MISSING", "the call carries no identity")
    scopes = frozenset(values.get(SCOPES_KEY, "").split())
    return Identity(values[TENANT_KEY], values[SUBJECT_KEY], scopes)


def _checked(key: str, value: str | bytes, seen: dict[str, str]) -> str:
    # A header given twice is a client's beside the edge's: neither is trusted.
    if key in seen or not isinstance(value, str) or not _FORMS[key].fullmatch(value):
        raise Unauthenticated("IDENTITY_INVALID", f"{key} is not of its form", metadata={"header": key})
    return value
