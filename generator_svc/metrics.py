"""What Prometheus is told of the generations."""

from collections.abc import Iterator

from prometheus_client import Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from generator_svc.generating import Generator

_PREFIX = "ragmesh_generator_"
_FREED_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_WAITED_S = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


def slot_free_histogram() -> Histogram:
    """The time from a reader's leaving to its slot being free, to be told in seconds."""
    return Histogram(
        f"{_PREFIX}cancel_to_slot_free_seconds",
        "Time from a reader's leaving, or an Abort, to its slot being free (cancel_to_slot_free_ms, in seconds).",
        registry=None,
        buckets=_FREED_S,
    )


def queue_wait_histogram() -> Histogram:
    """The time from a request's being read to its place on the engine, to be told in seconds."""
    return Histogram(
        f"{_PREFIX}queue_wait_seconds",
        "Time that admitted requests waited for a place on the engine.",
        registry=None,
        buckets=_WAITED_S,
    )


class GeneratorCollector(Collector):
    """Reads a generator's own counts when it is asked, so that counting costs a token nothing."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are; runs in the thread of the endpoint, so it reads numbers and nothing that moves."""
        admission, totals = self._generator.admission, self._generator.totals
        yield GaugeMetricFamily(f"{_PREFIX}running", "Sequences on the engine.", admission.running)
        yield GaugeMetricFamily(f"{_PREFIX}waiting", "Sequences that wait for the engine.", admission.waiting)
        yield GaugeMetricFamily(
            f"{_PREFIX}running_tokens", "Tokens that the running requests may come to.", admission.running_tokens
        )
        refused = CounterMetricFamily(
            f"{_PREFIX}refused",
            "Requests refused: overloaded on arrival, dropped from the queue for a tenant with a shorter one.",
            labels=["reason"],
        )
        for reason in ("overloaded", "dropped"):
            refused.add_metric([reason], admission.refusals[reason])
        yield refused
        yield CounterMetricFamily(f"{_PREFIX}tokens", "Tokens generated.", totals.completion_tokens)
        yield CounterMetricFamily(
            f"{_PREFIX}prompt_tokens", "Tokens of the prompts of generations that ended.", totals.prompt_tokens
        )
        yield CounterMetricFamily(
            f"{_PREFIX}cached_prompt_tokens", "Those of them found in the prefix cache.", totals.cached_tokens
        )
