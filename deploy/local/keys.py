"""The key pair that signs the local mesh's tokens, made on first start and kept in the data folder."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy.local.errors import StartError

ALGORITHM = "ES256"
SCOPES = ("ask", "search", "ingest", "admin")
_DAY_S = 86_400.0
_LOCAL_TOKEN_S = 365 * _DAY_S
_RENEW_BEFORE_S = 30 * _DAY_S


@dataclass(frozen=True, slots=True)
class Keys:
    """The local issuer: signs tokens that the edge takes. `jwks` holds its public key, `token` one for local use."""

    issuer: str
    audience: str
    jwks: Path
    token: Path
    private_key: ec.EllipticCurvePrivateKey = field(repr=False)

    def sign(
        self,
        tenant: str = "local",
        subject: str = "local",
        scopes: Iterable[str] = SCOPES,
        lifetime_s: float = _DAY_S,
    ) -> str:
        """A token for the tenant's subject with the scopes."""
        now = time.time()
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "tenant": tenant,
            "scope": " ".join(scopes),
            "iat": int(now),
            "exp": int(now + lifetime_s),
        }
        return jwt.encode(claims, self.private_key, ALGORITHM, headers={"kid": "local"})


def open_keys(folder: Path, issuer: str, audience: str) -> Keys:
    """The folder's keys, for their owner only; what is missing is made, and a token that ends soon made anew.

    Raises StartError where the folder holds a key of another kind.
    """
    key = _private_key(folder / "signing_key.pem")
    keys = Keys(issuer, audience, folder / "jwks.json", folder / "token", key)
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    _write(keys.jwks, json.dumps({"keys": [{**public, "kid": "local", "alg": ALGORITHM, "use": "sig"}]}))
    if not _lasts(keys):
        _write(keys.token, keys.sign(lifetime_s=_LOCAL_TOKEN_S) + "\n")
    return keys


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if path.exists():
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise StartError(f"{path} holds a key of another kind")
        return key
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(path, pem.decode())
    return key


def _lasts(keys: Keys) -> bool:
    """Whether there is a token of these keys that is good for a while."""
    try:
        jwt.decode(
            keys.token.read_text().strip(),
            keys.private_key.public_key(),
            [ALGORITHM],
            audience=keys.audience,
            issuer=keys.issuer,
            leeway=-_RENEW_BEFORE_S,
            options={"verify_iat": False},
        )
    except (OSError, jwt.InvalidTokenError):
        return False
    return True


def _write(path: Path, text: str) -> None:
    """Write whole or not at all, readable by the owner only."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.replace(path)
