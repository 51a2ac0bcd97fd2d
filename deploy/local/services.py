"""The five services as the local mesh runs them."""

import os
import sys
from functools import partial
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local.errors import StartError
from deploy.local.settings import HOST, LocalSettings, Ports
from deploy.local.supervisor import Program

# By name: the package, and the peers that it calls. In the order in which they start; they stop the other way round.
SERVICES = {
    "embedder": ("embedder_svc", ()),
    "generator": ("generator_svc", ()),
    "retriever": ("retriever_svc", ("embedder",)),
    "ingest": ("ingest_svc", ("embedder", "retriever")),
    "gateway": ("gateway", ("embedder", "generator", "retriever", "ingest")),
}
_HEALTH_TIMEOUT_S = 1.0


def address(name: str, ports: Ports) -> str:
    """Where a service listens, host:port."""
    return f"{HOST}:{getattr(ports, name)}"


def program(name: str, settings: LocalSettings, ports: Ports, data: Path) -> Program:
    """The service, keeping its data in the folder `data`."""
    package, peers = SERVICES[name]
    prefix = f"RAGMESH_{name.upper()}_"
    fixed = {
        "LISTEN": address(name, ports),
        "METRICS_LISTEN": address(f"{name}_metrics", ports),
        **{f"{peer.upper()}_TARGET": address(peer, ports) for peer in peers},
    }
    environment = {prefix + variable: value for variable, value in fixed.items()}
    # Parts that may be bigger ones elsewhere: the caller's own variables go first.
    for variable, value in _defaults(name, settings, ports, data).items():
        environment[prefix + variable] = os.environ.get(prefix + variable, value)
    return Program(name, [sys.executable, "-m", package], partial(serves, address(name, ports)), environment)


def _defaults(name: str, settings: LocalSettings, ports: Ports, data: Path) -> dict[str, str]:
    redis_url = f"redis://{HOST}:{ports.redis}/0"
    return {
        "embedder": {"REDIS_URL": redis_url},
        "generator": {"MODEL": settings.generator_model, "ENCODER_TARGET": address("embedder", ports)},
        "retriever": {"INDEX_URI": _index(data)},
        "ingest": {"REDIS_URL": redis_url, "OBJECT_STORE_URL": (data / "objects").as_uri()},
        "gateway": {"REDIS_URL": redis_url},
    }[name]


def _index(data: Path) -> str:
    """LanceDB; raises StartError where an earlier version's chunks lie in Milvus Lite, unless the caller chose."""
    old, new = data / "milvus.db", f"lance:{data / 'index'}"
    chosen = {"RAGMESH_RETRIEVER_INDEX_URI", "RAGMESH_RETRIEVER_MILVUS_URI"} & os.environ.keys()
    if old.exists() and not (data / "index").exists() and not chosen:
        command = f"{sys.executable} -m retriever_svc.move --from milvus:{old} --to {new}"
        raise StartError(f"the chunks are in {old}, where an earlier version kept them; this moves them:\n{command}")
    return new


async def serves(target: str, service: str = "") -> bool:
    """Whether the server at `target` says that the service, or all of it, is SERVING."""
    # A pool of its own: a channel to an address that failed a moment ago would wait out its backoff.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=_HEALTH_TIMEOUT_S
            )
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
