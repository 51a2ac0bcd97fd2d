"""The breaker's states, by a clock that the test holds."""

from embedder_svc.breaker import Breaker, BreakerState

OPEN_S = 5.0


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def opened(clock: Clock) -> Breaker:
    """A breaker that three failures have opened."""
    breaker = Breaker(3, OPEN_S, clock)
    for _ in range(3):
        assert breaker.allows()
        breaker.failed()
    return breaker


def test_failures_in_a_row_open_it() -> None:
    """Success in between starts the count again; the last of three shuts everybody out."""
    breaker = Breaker(3, OPEN_S, Clock())
    for outcome in (breaker.failed, breaker.failed, breaker.succeeded, breaker.failed, breaker.failed):
        assert breaker.allows()
        outcome()
    before = breaker.state
    breaker.failed()
    assert (before, breaker.state) == (BreakerState.CLOSED, BreakerState.OPEN)
    assert not breaker.allows()


def test_after_a_while_one_finds_out() -> None:
    """Not before `open_s`; then one asks and the next does not."""
    clock = Clock()
    breaker = opened(clock)
    clock.now_s += OPEN_S - 0.01
    assert not breaker.allows()
    clock.now_s += 0.01
    assert breaker.allows()
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.allows()


def test_success_of_the_one_closes_it() -> None:
    """All may ask again, and it takes as many failures as before to open."""
    clock = Clock()
    breaker = opened(clock)
    clock.now_s += OPEN_S
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    breaker.failed()
    assert breaker.allows()


def test_failure_of_the_one_opens_it_again() -> None:
    """For as long as the first time."""
    clock = Clock()
    breaker = opened(clock)
    clock.now_s += OPEN_S
    assert breaker.allows()
    breaker.failed()
    assert breaker.state is BreakerState.OPEN
    clock.now_s += OPEN_S - 0.01
    assert not breaker.allows()
    clock.now_s += 0.01
    assert breaker.allows()


def test_one_who_never_says_how_it_went_does_not_hold_it_for_ever() -> None:
    """After `open_s` somebody else may find out."""
    clock = Clock()
    breaker = opened(clock)
    clock.now_s += OPEN_S
    assert breaker.allows()
    clock.now_s += OPEN_S
    assert breaker.allows()
    assert not breaker.allows()
