"""What Prometheus is told of second attempts."""

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from retriever_svc.hedging import Hedging

_PREFIX = "ragmesh_retriever_embed_"


class HedgingCollector(Collector):
    """Reads the counts of second attempts at encoding when it is asked."""

    def __init__(self, hedging: Hedging) -> None:
        self._hedging = hedging

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are; runs in the thread of the endpoint, so it reads numbers and nothing that moves."""
        totals = self._hedging.totals
        yield CounterMetricFamily(f"{_PREFIX}calls", "Calls of the embedder to encode queries.", totals.calls)
        hedges = CounterMetricFamily(
            f"{_PREFIX}hedges",
            "Second attempts: that won, that lost, that the budget denied.",
            labels=["outcome"],
        )
        for outcome, number in (("won", totals.won), ("lost", totals.hedged - totals.won), ("denied", totals.denied)):
            hedges.add_metric([outcome], number)
        yield hedges
        yield GaugeMetricFamily(
            f"{_PREFIX}hedge_delay_seconds", "Time after which a second attempt is made.", self._hedging.delay_s
        )
