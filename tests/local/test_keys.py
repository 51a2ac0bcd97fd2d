"""The local issuer keeps its key and renews its token."""

import stat
from pathlib import Path

import jwt
import pytest

from deploy.local.keys import SCOPES, open_keys

ISSUER, AUDIENCE = "https://ragmesh.local", "ragmesh"


def _claims(token: str) -> dict[str, object]:
    return dict(jwt.decode(token.strip(), options={"verify_signature": False}))


def test_what_is_secret_is_for_its_owner_only(tmp_path: Path) -> None:
    """Key and token have mode 0600 and do not show in the object's text."""
    keys = open_keys(tmp_path, ISSUER, AUDIENCE)
    for path in (tmp_path / "signing_key.pem", keys.token):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "private_key" not in repr(keys)


def test_key_and_token_stay(tmp_path: Path) -> None:
    """A second start has the same key and the same token."""
    first = open_keys(tmp_path, ISSUER, AUDIENCE)
    token, jwks = first.token.read_text(), first.jwks.read_text()
    second = open_keys(tmp_path, ISSUER, AUDIENCE)
    assert (second.token.read_text(), second.jwks.read_text()) == (token, jwks)
    assert _claims(token)["scope"] == " ".join(SCOPES)


@pytest.mark.parametrize("lifetime_s", [60.0, -60.0])
def test_a_token_that_ends_soon_is_made_anew(tmp_path: Path, lifetime_s: float) -> None:
    """One that is about to end, or has, is replaced by one for a year."""
    keys = open_keys(tmp_path, ISSUER, AUDIENCE)
    keys.token.write_text(keys.sign(lifetime_s=lifetime_s))
    old = _claims(keys.token.read_text())
    renewed = _claims(open_keys(tmp_path, ISSUER, AUDIENCE).token.read_text())
    assert int(str(renewed["exp"])) > int(str(old["exp"])) + 300 * 86_400


def test_another_issuer_needs_another_token(tmp_path: Path) -> None:
    """A token for another issuer or audience is not kept."""
    old = open_keys(tmp_path, ISSUER, AUDIENCE).token.read_text()
    assert _claims(open_keys(tmp_path, "https://other.example", AUDIENCE).token.read_text()) != _claims(old)


def test_the_token_of_another_key_is_made_anew(tmp_path: Path) -> None:
    """When the key is lost, so is what it signed."""
    keys = open_keys(tmp_path, ISSUER, AUDIENCE)
    old = keys.token.read_text()
    (tmp_path / "signing_key.pem").unlink()
    assert open_keys(tmp_path, ISSUER, AUDIENCE).token.read_text() != old
