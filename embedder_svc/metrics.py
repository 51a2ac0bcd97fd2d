"""What Prometheus is told of the embedding cache."""

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from embedder_svc.embedding_cache import EmbeddingCache

_PREFIX = "ragmesh_embedder_cache_"


class CacheCollector(Collector):
    """Reads a cache's own counts when it is asked, so that counting costs a text nothing."""

    def __init__(self, cache: EmbeddingCache) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are; runs in the thread of the endpoint, so it reads numbers and nothing that moves."""
        counts = self._cache.counts
        yield CounterMetricFamily(f"{_PREFIX}hits", "Texts whose vectors were found.", counts.hits)
        yield CounterMetricFamily(
            f"{_PREFIX}misses", "Texts whose vectors were not found, or not in time.", counts.misses
        )
        yield CounterMetricFamily(f"{_PREFIX}errors", "Look-ups and writes that Redis failed.", counts.errors)
        yield CounterMetricFamily(f"{_PREFIX}dropped", "Vectors made that were not written.", counts.dropped)
        yield GaugeMetricFamily(
            f"{_PREFIX}breaker", "Whether Redis is asked: 0 closed, 1 half open, 2 open.", self._cache.state.value
        )
