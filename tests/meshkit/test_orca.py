"""Load reports as trailers and back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshkit import orca
from meshkit.orca import LoadReport
from meshkit.testing import connect, serve
from tests.meshkit.probe import ALICE, Echo, app_of
from xds.data.orca.v3 import orca_load_report_pb2

REPORT = LoadReport(running=3, waiting=2, limit=4, outstanding_tokens=1500, tokens_per_second=62.5, cache_use=0.25)


async def test_report_reaches_the_caller(wire: Any) -> None:
    """What a servicer says of its load is in the trailers that its caller reads."""

    class Loaded(Echo):
        async def Count(self, request: Any, context: Any) -> Any:
            context.set_trailing_metadata(orca.to_trailers(REPORT))
            yield wire.ProbeResponse()

    async with serve(app_of(wire, Loaded(wire))) as address, connect(address, ALICE) as channel:
        call = wire.ProbeServiceStub(channel).Count(wire.ProbeRequest())
        _ = [response async for response in call]
        assert orca.from_trailers(await call.trailing_metadata()) == REPORT


def test_report_for_balancers() -> None:
    """The balancing of gRPC and Envoy finds in it what it knows: the share of what may run that runs."""
    binary = dict(orca.to_trailers(REPORT))[orca.KEY]
    assert isinstance(binary, bytes)
    message = orca_load_report_pb2.OrcaLoadReport.FromString(binary)
    assert message.application_utilization == 0.75
    assert message.utilization == {"kv_cache": 0.25}
    assert message.named_metrics["outstanding_tokens"] == 1500


@given(st.builds(LoadReport, *(st.integers(0, 999_999) for _ in range(4))))
def test_every_report_comes_back(report: LoadReport) -> None:
    """Counts survive the way."""
    assert orca.from_trailers(orca.to_trailers(report)) == report


@pytest.mark.parametrize(
    ("value", "report"),
    [
        ("TEXT named_metrics.running=2, cpu_utilization=0.5", LoadReport(running=2)),
        ("TEXT named_metrics.running=many", None),
        ("TEXT ", LoadReport()),
        ('JSON {"cpu_utilization": 0.5}', None),
        (b"\x00", None),
    ],
)
def test_other_reports(value: str | bytes, report: LoadReport | None) -> None:
    """What somebody else sends is read as far as it is known, or not at all."""
    assert orca.from_trailers([("other", "1"), (orca.TEXT_KEY, value)]) == report


def test_no_report() -> None:
    """Trailers without a report hold none."""
    assert orca.from_trailers([]) is None
