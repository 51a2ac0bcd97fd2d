"""What Prometheus is told of answers given again."""

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.caching import AnswerCache


class CacheCollector(Collector):
    """Reads the counts of the cache when it is asked."""

    def __init__(self, cache: AnswerCache) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are; runs in the thread of the endpoint, so it reads numbers and nothing that moves."""
        family = CounterMetricFamily(
            "ragmesh_gateway_cache_lookups",
            "Answers looked for among those given before: exact, semantic (in other words) or none.",
            labels=["hit"],
        )
        for how, number in self._cache.hits.items():
            family.add_metric([how.value], number)
        yield family
