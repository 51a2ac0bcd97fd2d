"""The ways to cut documents into chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from google.protobuf import struct_pb2

from ragmesh.ingest.v1 import chunking_pb2, chunking_pb2_grpc
from ragmesh_client.connection import Connection


class Strategies(Connection):
    """The calls about chunking strategies."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._chunking = chunking_pb2_grpc.ChunkingServiceStub(self.channel)
        return self

    async def list_strategies(self) -> Sequence[chunking_pb2.ChunkingStrategy]:
        """The strategies of the mesh with the JSON schemas of their parameters, the default one first."""
        request = chunking_pb2.ListChunkingStrategiesRequest()
        return (await self.call(self._chunking.ListChunkingStrategies, request)).strategies

    async def recommend_strategy(
        self, *, media_type: str = "", sample: str = "", use_case: str = ""
    ) -> chunking_pb2.RecommendChunkingStrategyResponse:
        """The strategy that suits a kind of document, the beginning of its text and a use in words; and why."""
        request = chunking_pb2.RecommendChunkingStrategyRequest(media_type=media_type, sample=sample, use_case=use_case)
        return await self.call(self._chunking.RecommendChunkingStrategy, request)


def chunking(strategy: str, **parameters: Any) -> chunking_pb2.Chunking:
    """A strategy by its name, and those of its parameters that differ from their defaults."""
    fields = struct_pb2.Struct()
    fields.update(parameters)
    return chunking_pb2.Chunking(strategy=strategy, parameters=fields)
