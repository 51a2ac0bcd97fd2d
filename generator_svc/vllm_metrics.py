"""vLLM's own figures, under the names that its users know."""

from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.registry import Collector


class VllmMetrics(Collector):
    """Every `vllm:` metric (KV cache, prefix cache, preemptions, drafts accepted, adapters) of this process's engine.

    vLLM keeps them in the registry that it finds, also across a restart of its engine; this only shows them.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        return (metric for metric in self._registry.collect() if metric.name.startswith("vllm:"))
