"""Every method of the contract that the edge offers reaches the service that has it."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any, cast

import grpc
import httpx
import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, empty_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from deploy.local import envoy, services
from deploy.local.errors import StartError
from deploy.local.settings import Ports
from tests.edge import doubles
from tests.edge.running import Edge, open_envoy

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Where the methods of a service are served; the rest is for the mesh alone.
CLUSTERS = {
    "ragmesh.gateway.v1": "gateway",
    "ragmesh.ingest.v1": "ingest",
    "ragmesh.retriever.v1.RetrieverService": "retriever",
}


def _methods() -> Iterator[tuple[str, descriptor_pb2.MethodDescriptorProto]]:
    """Each method of the descriptor set that Envoy reads, with the full name of its service."""
    files = descriptor_pb2.FileDescriptorSet.FromString((envoy.REPOSITORY / "gen" / "ragmesh.pb").read_bytes())
    for file in files.file:
        for service in file.service:
            for method in service.method:
                yield f"{file.package}.{service.name}", method


def _cluster(service: str) -> str | None:
    return next((name for prefix, name in CLUSTERS.items() if service.startswith(prefix)), None)


def _rest_calls() -> Iterator[tuple[str, str, str, str]]:
    """Each HTTP binding: cluster, gRPC path, verb and an example of its path."""
    for service, method in _methods():
        rule: Any = method.options.Extensions[cast("Any", annotations_pb2.http)]
        for binding in [rule, *rule.additional_bindings]:
            if verb := binding.WhichOneof("pattern"):
                cluster = _cluster(service)
                assert cluster, f"{service} has a path and no cluster"
                path = re.sub(r"\{[^=}]*=([^}]*)\}", r"\1", getattr(binding, verb)).replace("*", "x")
                yield cluster, f"/{service}/{method.name}", verb.upper(), path


async def test_each_path_and_each_method_reaches_its_service(tmp_path_factory: pytest.TempPathFactory) -> None:
    """By REST and by gRPC; methods of services for the mesh alone reach none."""
    ports, data = Ports.free().chosen(), tmp_path_factory.mktemp("routes")
    backends = {name: getattr(ports, name) for name in ("gateway", "ingest", "retriever")}
    async with doubles.record(backends) as recorders, open_envoy(data, ports) as (_, keys):
        bearer = {"authorization": f"Bearer {keys.sign()}"}
        address = services.address("edge", ports)

        def reached() -> list[tuple[str, str]]:
            found = [(name, method) for name, recorder in recorders.items() for method in recorder.methods]
            for recorder in recorders.values():
                recorder.methods.clear()
            return found

        async with httpx.AsyncClient(base_url=f"http://{address}", headers=bearer, timeout=10) as http:
            for cluster, rpc, verb, path in _rest_calls():
                await http.request(verb, path, content=b"{}" if verb in {"POST", "PATCH"} else None)
                assert reached() == [(cluster, rpc)], f"{verb} {path}"
        async with grpc.aio.insecure_channel(address) as channel:
            for service, method in _methods():
                path = f"/{service}/{method.name}"
                expected = grpc.StatusCode.ABORTED if _cluster(service) else grpc.StatusCode.UNIMPLEMENTED
                call: Any = channel.unary_unary(path, request_serializer=empty_pb2.Empty.SerializeToString)
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await call(empty_pb2.Empty(), metadata=list(bearer.items()), timeout=10)
                assert raised.value.code() is expected, path
                assert reached() == ([(_cluster(service), path)] if _cluster(service) else [])


async def test_a_value_that_the_configuration_lacks_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A wrong name among the edge's values stops the start and is said."""
    with pytest.raises(StartError, match="ASK_BRUST"):
        async with open_envoy(tmp_path_factory.mktemp("typo"), Ports.free(), {"ASK_BRUST": "1"}):
            pass


async def test_health_and_reflection_need_no_token(edge: Edge) -> None:
    """Balancers and grpcurl ask without one; whatever stands in the token's place does not matter."""
    health = health_pb2_grpc.HealthStub(edge.channel)
    asked = health_pb2.HealthCheckRequest(service="ragmesh.gateway.v1.AnswerService")
    answer = await health.Check(asked, metadata=[("authorization", "Bearer nonsense")], timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(edge.channel)
    call: Any = reflection.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10
    )
    listed = await call.read()
    names = {service.name for service in listed.list_services_response.service}
    assert "ragmesh.gateway.v1.AnswerService" in names
    call.cancel()


async def test_a_shell_reads_the_values_as_the_launcher_does() -> None:
    """defaults.env can be sourced, so that envsubst fills the configuration in where there is no launcher."""
    command = f"set -a; . {envoy.FOLDER}/defaults.env; env -0"
    process = await asyncio.create_subprocess_exec("sh", "-c", command, stdout=asyncio.subprocess.PIPE, env={})
    output, _ = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 0
    sourced = dict(line.split("=", 1) for line in output.decode().split("\0") if line)
    assert {name: sourced.get(name) for name in envoy.DEFAULTS} == envoy.DEFAULTS
