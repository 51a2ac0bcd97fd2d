"""Who a caller is, is what the edge says, on every surface."""

import base64
import hmac
import json
import time
from collections.abc import Callable

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from meshkit.identity import SCOPES_KEY, SUBJECT_KEY, TENANT_KEY
from ragmesh.gateway.v1 import answers_pb2
from tests.edge.running import ASK, SURFACES, Edge

pytestmark = pytest.mark.asyncio(loop_scope="session")


def _claims(edge: Edge, **changed: object) -> dict[str, object]:
    claims = jwt.decode(edge.keys.sign("acme", "ann"), options={"verify_signature": False})
    return {name: value for name, value in (claims | changed).items() if value is not None}


def _signed(edge: Edge, **changed: object) -> str:
    return jwt.encode(_claims(edge, **changed), edge.keys.private_key, "ES256", headers={"kid": "local"})


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def _unsigned(edge: Edge) -> str:
    parts = [{"alg": "none", "typ": "JWT"}, _claims(edge)]
    return ".".join([*(_encoded(json.dumps(part).encode()) for part in parts), ""])


def _forged(edge: Edge) -> str:
    other = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(_claims(edge), other, "ES256", headers={"kid": "local"})


def _by_public_key(edge: Edge) -> str:
    # The classic confusion: an HMAC with the public key, which everybody has, as its secret.
    parts = [{"alg": "HS256", "typ": "JWT", "kid": "local"}, _claims(edge)]
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
    return f"{signed}.{_encoded(hmac.digest(edge.keys.jwks.read_bytes(), signed.encode(), 'sha256'))}"


def _changed_after_signing(edge: Edge) -> str:
    head, _, signature = edge.keys.sign("acme", "ann").split(".")
    claims = json.dumps(_claims(edge, tenant="other")).encode()
    return ".".join([head, _encoded(claims), signature])


BAD_TOKENS: dict[str, Callable[[Edge], str]] = {
    "alg none": _unsigned,
    "another key": _forged,
    "HMAC with the public key": _by_public_key,
    "claims changed after signing": _changed_after_signing,
    "expired": lambda edge: _signed(edge, exp=int(time.time()) - 120),
    "not yet valid": lambda edge: _signed(edge, nbf=int(time.time()) + 3600),
    "without an end": lambda edge: _signed(edge, exp=None),
    "another audience": lambda edge: _signed(edge, aud="others"),
    "another issuer": lambda edge: _signed(edge, iss="https://others.example"),
    "not a token": lambda _edge: "sk-not-a-token",
    "two tokens": lambda edge: f"{edge.keys.sign('acme')}, Bearer {edge.keys.sign('other')}",
}


@pytest.mark.parametrize("surface", SURFACES)
async def test_a_call_without_a_token_is_refused_on_every_surface(edge: Edge, surface: str) -> None:
    """No token: UNAUTHENTICATED, IDENTITY_MISSING, in the surface's own form."""
    refusal = await edge.refusal(surface, {})
    assert refusal.reason == "IDENTITY_MISSING"
    assert refusal.message == "no token was sent"
    assert refusal.code in {0, 16}
    assert refusal.http_status == (200 if "grpc" in surface else 401)


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("trick", BAD_TOKENS)
async def test_a_bad_token_is_refused_on_every_surface(edge: Edge, trick: str, surface: str) -> None:
    """Forged, expired, unsigned, for others: UNAUTHENTICATED, IDENTITY_INVALID, and nothing reaches a service."""
    calls = edge.seen.calls
    refusal = await edge.refusal(surface, {"authorization": f"Bearer {BAD_TOKENS[trick](edge)}"})
    assert refusal.reason == "IDENTITY_INVALID"
    assert refusal.code in {0, 16}
    assert refusal.message
    assert edge.seen.calls == calls


async def test_the_claims_reach_the_service_as_identity(edge: Edge) -> None:
    """Tenant, subject and scopes of the token are those that the service sees; the token itself is not passed on."""
    token = edge.keys.sign("acme", "ann", ["ask", "search"])
    assert await _identity(edge, [("authorization", f"Bearer {token}")]) == "acme/ann/ask search"
    assert "authorization" not in dict(edge.seen.metadata)


@pytest.mark.parametrize("name", [TENANT_KEY, SUBJECT_KEY, SCOPES_KEY, "X-Ragmesh-Tenant", "x-ragmesh-anything"])
async def test_identity_headers_of_a_caller_are_stripped(edge: Edge, name: str) -> None:
    """A caller that sends identity headers, once or twice, is still whom its token names."""
    sent = [("authorization", edge.bearer["authorization"]), (name.lower(), "root"), (name.lower(), "admin")]
    assert (await _identity(edge, sent)).startswith("acme/ann/")
    assert [value for key, value in edge.seen.metadata if key == name.lower()] in (
        [],
        ["acme"],
        ["ann"],
        ["ask search ingest admin"],
    )
    body = {"question": "q", "collection": "collections/handbook"}
    await edge.http.post("/v1/answers", json=body, headers=[*edge.bearer.items(), (name, "root")])
    assert "root" not in {value for _, value in edge.seen.metadata}


async def test_a_token_without_a_tenant_is_nobody(edge: Edge) -> None:
    """A good token that names no tenant is refused by the service, whatever headers the caller adds."""
    headers = {"authorization": f"Bearer {_signed(edge, tenant=None)}", TENANT_KEY: "acme"}
    refusal = await edge.refusal("grpc", headers)
    assert (refusal.code, refusal.reason) == (16, "IDENTITY_MISSING")


async def test_a_token_in_the_address_does_not_count(edge: Edge) -> None:
    """A token in the query, which logs would keep, is no token."""
    response = await edge.http.get("/v1/sessions/s", params={"access_token": edge.keys.sign()})
    assert response.status_code == 401


@pytest.mark.parametrize("path", ["..%2Fv1%2Fsessions%2Fs", "..%2F..%2Fv1/sessions/s", "..%5cv1/sessions/s"])
async def test_no_escape_leads_past_the_token(edge: Edge, path: str) -> None:
    """A path that begins like one that needs no token, and leads elsewhere once it is unescaped, needs one."""
    assert (await edge.http.get(f"/grpc.health.v1.Health/{path}")).status_code == 401


async def test_a_caller_cannot_steer_the_edge(edge: Edge) -> None:
    """Envoy's own request headers (timeouts, retries) do nothing when a caller sends them."""
    steering = [("x-envoy-upstream-rq-timeout-ms", "1"), ("x-envoy-max-retries", "9")]
    assert (await _identity(edge, [*edge.bearer.items(), *steering])).startswith("acme/ann/")


async def _identity(edge: Edge, metadata: list[tuple[str, str]]) -> str:
    last = answers_pb2.AskResponse()
    async for response in edge.answers.Ask(ASK, metadata=metadata, timeout=10):
        last = response
    return last.event.final.text
