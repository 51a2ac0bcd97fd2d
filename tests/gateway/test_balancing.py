"""The choice among replicas, on a clock that the test moves."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.balancing import Policy, Standing, choose
from meshkit.errors import InvalidArgument, MeshError, ResourceExhausted, Unavailable

AWAY = Unavailable("PEER_UNAVAILABLE", "away")
POLICY = Policy(load_factor=1.25, report_half_life_s=2.0, cooldown_s=1.0, cooldown_max_s=8.0)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Replicas:
    """Three replicas, or as many as asked for, and their works under way."""

    def __init__(self, count: int = 3) -> None:
        self.clock = Clock()
        self.all = [Standing(f"10.0.0.{place}:50053", POLICY, self.clock) for place in range(count)]
        self._works = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._works.close()

    def take(self, session: str = "", tokens: int = 100, of: Sequence[Standing] = ()) -> Standing:
        """Give a generation to the best replica, which has it until the end."""
        chosen = choose(of or self.all, session, tokens)
        self._works.enter_context(chosen.working(tokens))
        return chosen

    def outstanding(self) -> list[float]:
        return [each.outstanding for each in self.all]


@pytest.fixture
def replicas() -> Iterator[Replicas]:
    """Three idle replicas."""
    with Replicas() as replicas:
        yield replicas


def test_least_outstanding_is_chosen(replicas: Replicas) -> None:
    """Tokens count, not calls: one long answer weighs as much as several short ones."""
    long = replicas.take(tokens=1000)
    short = [replicas.take(tokens=100) for _ in range(10)]
    assert long not in short
    assert sorted(replicas.outstanding()) == [500, 500, 1000]


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=60), st.integers(2, 6))
def test_load_is_level(lengths: list[int], count: int) -> None:
    """No replica is ever more than one answer ahead of another."""
    with Replicas(count) as replicas:
        for tokens in lengths:
            replicas.take(tokens=tokens)
        assert max(replicas.outstanding()) - min(replicas.outstanding()) <= max(lengths)


def test_ties_are_broken_at_random(replicas: Replicas) -> None:
    """Idle replicas are all taken: many gateways do not send their first calls to the same one."""
    assert {choose(replicas.all) for _ in range(200)} == set(replicas.all)


def test_tokens_made_are_no_load(replicas: Replicas) -> None:
    """The load of a generation shrinks token by token, never below nothing, and is gone at its end."""
    standing = replicas.all[0]
    with standing.working(100) as work:
        work.made(30)
        assert standing.outstanding == 70
        work.made(90)
        assert standing.outstanding == 0
    with standing.working(100) as work:
        work.end()
        assert standing.outstanding == 0
    assert standing.outstanding == 0


def test_generation_without_a_bound_counts(replicas: Replicas) -> None:
    """An extractive answer has no tokens to count: it counts as one, so that calls are spread."""
    counts = Counter(replicas.take(tokens=0) for _ in range(9))
    assert set(counts.values()) == {3}


def test_report_tells_of_other_callers(replicas: Replicas) -> None:
    """A replica that others keep busy is avoided; our own calls are not counted twice."""
    busy, ours, idle = replicas.all
    with ours.working(300):
        busy.reported(400)
        ours.reported(300)
        idle.reported(50)
        assert replicas.outstanding() == [400, 300, 50]
        assert choose(replicas.all) is idle
        with idle.working(300):
            assert choose(replicas.all) is ours


def test_reports_decay(replicas: Replicas) -> None:
    """An old report counts half after each half-life; a new one counts in full."""
    standing = replicas.all[0]
    standing.reported(400)
    replicas.clock.now_s += 2
    assert standing.outstanding == pytest.approx(200)
    replicas.clock.now_s += 4
    assert standing.outstanding == pytest.approx(50)
    standing.reported(400)
    assert standing.outstanding == 400


def test_session_stays_with_its_replica(replicas: Replicas) -> None:
    """The turns of a session go to one replica, also when it is a little busier than the others."""
    own = choose(replicas.all, "s1")
    for _ in range(20):
        with own.working(100):
            assert choose(replicas.all, "s1", 100) is own


def test_sessions_are_spread(replicas: Replicas) -> None:
    """Every replica gets its share of the sessions."""
    counts = Counter(choose(replicas.all, f"s{number}") for number in range(300))
    assert min(counts[standing] for standing in replicas.all) > 70


@given(st.text(min_size=1), st.integers(0, 4))
def test_removal_moves_only_its_own_sessions(session: str, gone: int) -> None:
    """When a replica goes, the sessions of the others stay where they are; when it is back, its own come back."""
    replicas = Replicas(5).all
    own, left = choose(replicas, session), replicas[:gone] + replicas[gone + 1 :]
    assert choose(left, session) is own or own is replicas[gone]
    assert choose(replicas, session) is own


def test_session_leaves_a_replica_that_is_too_busy(replicas: Replicas) -> None:
    """Beyond the bound the least loaded replica takes the turn; the session returns when the load has gone."""
    own = choose(replicas.all, "s1")
    with own.working(1000):
        assert choose(replicas.all, "s1", 100) is not own
        # A bound in proportion to the load: where all are as busy, the session stays.
        for other in replicas.all:
            if other is not own:
                other.reported(900)
        assert choose(replicas.all, "s1", 100) is own
    assert choose(replicas.all, "s1", 100) is own


@given(st.lists(st.tuples(st.sampled_from(["", "s1", "s2", "s3"]), st.integers(1, 500)), max_size=60))
def test_session_never_exceeds_the_bound(turns: list[tuple[str, int]]) -> None:
    """However sessions fall, who takes an answer has at most the factor times the mean, and that answer more."""
    with Replicas() as replicas:
        for session, tokens in turns:
            mean = sum(replicas.outstanding()) / 3
            assert replicas.take(session, tokens).outstanding <= 1.25 * mean + 2 * tokens


def test_failed_replica_cools_down(replicas: Replicas) -> None:
    """It is left alone for a while, twice as long with each failure, up to the bound; an answer ends that."""
    failed, *others = replicas.all
    pauses_s = []
    for _ in range(5):
        failed.failed(AWAY)
        pauses_s.append(failed.cooling_until_s - replicas.clock.now_s)
        assert choose([failed, *others]) in others
        replicas.clock.now_s = failed.cooling_until_s
        assert not failed.cooling
    assert pauses_s == [1, 2, 4, 8, 8]
    failed.failed(AWAY)
    failed.answered()
    assert not failed.cooling


def test_session_of_a_failed_replica_moves_and_returns(replicas: Replicas) -> None:
    """While a session's replica cools down one other takes its turns."""
    own = choose(replicas.all, "s1")
    own.failed(AWAY)
    other = choose(replicas.all, "s1")
    assert other is not own
    assert {choose(replicas.all, "s1") for _ in range(20)} == {other}
    own.answered()
    assert choose(replicas.all, "s1") is own


@pytest.mark.parametrize(("retry_after_s", "pause_s"), [(0.2, 0.2), (60.0, 1.0), (None, 1.0)])
def test_overloaded_replica_is_left_alone(replicas: Replicas, retry_after_s: float | None, pause_s: float) -> None:
    """As long as it asks for, within the bound; its answers to others do not change that."""
    busy = replicas.all[0]
    busy.failed(ResourceExhausted("OVERLOADED", "full", retry_after_s=retry_after_s))
    busy.answered()
    assert busy.cooling
    assert busy.cooling_until_s == replicas.clock.now_s + pause_s


@pytest.mark.parametrize("error", [InvalidArgument("PROMPT_TOO_LONG", "long"), ResourceExhausted("TOO_LARGE", "large")])
def test_fault_of_the_caller_is_no_failure(replicas: Replicas, error: MeshError) -> None:
    """A replica that refuses a bad request is as good as before."""
    replicas.all[0].failed(error)
    assert not replicas.all[0].cooling


def test_when_all_cool_down_the_first_one_back_is_tried(replicas: Replicas) -> None:
    """No call is refused without having been tried."""
    for retry_after_s, replica in zip((0.9, 0.3, 0.5), replicas.all, strict=True):
        replica.failed(ResourceExhausted("OVERLOADED", "full", retry_after_s=retry_after_s))
    assert choose(replicas.all, "s1") is replicas.all[1]
