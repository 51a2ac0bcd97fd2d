"""Pages of a list: bounds of the page size, and tokens that say where the next page begins (AIP-158)."""

import base64
import binascii
import hashlib
import hmac

from meshkit.errors import InvalidArgument, invalid

_SUM_BYTES = 8


def page_size(requested: int, default: int = 50, maximum: int = 1000) -> int:
    """The size of the page to return: 0 asks for the default, more than the maximum gets the maximum."""
    if requested < 0:
        raise invalid("page_size", "must not be negative")
    return min(requested or default, maximum)


def encode(cursor: str, scope: str) -> str:
    """The token for the page that begins at `cursor`.

    `scope` is the method with all that selects and orders its list (tenant, parent, filter): a token is good
    only where the scope is the same. The token hides the cursor from view, not from an attacker.
    """
    text = cursor.encode()
    return base64.urlsafe_b64encode(_sum(text, scope) + text).decode().rstrip("=")


def decode(token: str, scope: str) -> str:
    """The cursor in a token, "" for the first page's empty one; raises InvalidArgument for any other."""
    if not token:
        return ""
    try:
        sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        seal, text = sealed[:_SUM_BYTES], sealed[_SUM_BYTES:]
        cursor = text.decode()
    except (binascii.Error, ValueError) as error:
        raise _bad_token() from error
    if not hmac.compare_digest(seal, _sum(text, scope)):
        raise _bad_token()
    return cursor


def _sum(text: bytes, scope: str) -> bytes:
    return hashlib.blake2b(text, digest_size=_SUM_BYTES, key=hashlib.sha256(scope.encode()).digest()).digest()


def _bad_token() -> InvalidArgument:
    description = "was not issued for this request; begin again with an empty page_token"
    return invalid("page_token", description, reason="INVALID_PAGE_TOKEN")
