"""The mesh as its gateway sees it."""

import time

from ragmesh.common.v1 import server_pb2
from ragmesh.gateway.v1 import mesh_pb2
from ragmesh.generator.v1 import generator_pb2
from tests.gateway.conftest import Gateway, free_port, open_gateway
from tests.gateway.peer_doubles import EXTRACTIVE, TINY, Peers

SERVING = server_pb2.ServiceHealth.STATE_SERVING


async def _servers(gateway: Gateway) -> list[server_pb2.ServerInfo]:
    return list((await gateway.mesh.GetMeshStatus(mesh_pb2.GetMeshStatusRequest())).servers)


async def test_every_server_says_how_it_is(gateway: Gateway) -> None:
    """The gateway comes first, with its own services, then its four peers."""
    servers = await _servers(gateway)
    assert len(servers) == 5
    assert servers[0].name == "gateway"
    assert {"ragmesh.gateway.v1.AnswerService", "ragmesh.gateway.v1.ApiKeyService"} <= {
        service.service for service in servers[0].services
    }
    assert all(service.state == SERVING for server in servers for service in server.services)


async def test_server_that_is_away_is_listed(redis_url: str, peers: Peers) -> None:
    """A server that does not answer is named with its services, their state unspecified; the others are there."""
    away = f"127.0.0.1:{free_port()}"
    async with open_gateway(redis_url, peers, embedder_target=away, status_timeout_s=0.5) as gateway:
        began = time.monotonic()
        servers = await _servers(gateway)
    assert time.monotonic() - began < 3
    assert servers[3].name == "embedder_svc"
    (service,) = servers[3].services
    assert service.service == "ragmesh.embedder.v1.EmbedderService"
    assert service.state == server_pb2.ServiceHealth.STATE_UNSPECIFIED
    assert servers[2].services[0].state == SERVING


async def test_models_are_those_of_the_generator(gateway: Gateway) -> None:
    """Models come in the generator's order with all that it says of them."""
    gateway.peers.generator.models = [TINY, EXTRACTIVE]
    models = (await gateway.mesh.ListModels(mesh_pb2.ListModelsRequest())).models
    assert list(models) == [TINY, EXTRACTIVE]
    assert models[1].kind == generator_pb2.ENGINE_KIND_EXTRACTIVE
