"""How long a stream waits between its messages."""

from contextlib import ExitStack

import pytest

from generator_svc.gathering import Gathering


def test_a_stream_alone_waits_for_nothing() -> None:
    """Nobody else's tokens are on their way."""
    gathering = Gathering(0.04)
    assert gathering.gap_s == 0
    with gathering.stream():
        assert gathering.gap_s == 0


def test_each_other_stream_adds_a_millisecond() -> None:
    """The wait grows with the streams, no further than the limit."""
    gathering = Gathering(0.02)
    with ExitStack() as streams:
        gaps_s = []
        for _ in range(32):
            streams.enter_context(gathering.stream())
            gaps_s.append(gathering.gap_s)
    assert gaps_s == pytest.approx([min(0.001 * others, 0.02) for others in range(32)])


def test_stream_that_fails() -> None:
    """However it ends, the others wait no longer for it."""
    gathering = Gathering(0.04)
    with gathering.stream():
        with pytest.raises(ValueError, match="broken"), gathering.stream():
            raise ValueError("broken")
        assert gathering.gap_s == 0


def test_a_limit_of_nothing_gathers_nothing() -> None:
    """The setting's zero turns it off."""
    gathering = Gathering(0.0)
    with gathering.stream(), gathering.stream():
        assert gathering.gap_s == 0
