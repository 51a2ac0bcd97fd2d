"""What a call carries in its context: identity and deadline, and the permit it works under."""

import asyncio

import pytest

from meshkit import deadline, errors, identity
from meshkit.admission import Permits
from meshkit.deadline import Deadline
from meshkit.identity import Identity


def test_no_identity() -> None:
    """Outside of a call there is no identity."""
    assert identity.current_or_none() is None
    with pytest.raises(errors.Unauthenticated, match="IDENTITY_MISSING"):
        identity.current()


def test_acting_as() -> None:
    """An identity is current inside the body, and the one before it afterwards."""
    alice, bob = Identity("acme", "alice"), Identity("acme", "bob")
    with identity.acting_as(alice):
        with identity.acting_as(bob):
            assert identity.current() is bob
        assert identity.current() is alice
    assert identity.current_or_none() is None


def test_scope() -> None:
    """A scope that the caller lacks is PERMISSION_DENIED and named."""
    with identity.acting_as(Identity("acme", "alice", frozenset({"ask"}))):
        identity.require_scope("ask")
        with pytest.raises(errors.PermissionDenied) as caught:
            identity.require_scope("ingest")
    assert (caught.value.reason, caught.value.metadata) == ("SCOPE_MISSING", {"scope": "ingest"})


@pytest.mark.parametrize("scopes", [frozenset(), frozenset({"ask"}), frozenset({"ask", "ingest"})])
def test_identity_as_metadata(scopes: frozenset[str]) -> None:
    """An identity survives the way through metadata."""
    alice = Identity("acme", "alice@example.com", scopes)
    assert identity.from_metadata(identity.to_metadata(alice)) == alice


def test_deadline() -> None:
    """A deadline counts down, a margin makes it earlier, and it never has less than nothing left."""
    limit = Deadline.after(10)
    assert 9.9 < limit.remaining_s() <= 10
    assert 7.9 < limit.less(2).remaining_s() <= 8
    assert limit.less(20).remaining_s() == 0


def test_capped() -> None:
    """`capped` takes the current deadline or else the default, and never more than the maximum."""
    assert 4.9 < deadline.capped(5, 60).remaining_s() <= 5
    assert 2.9 < deadline.capped(5, 3).remaining_s() <= 3
    with deadline.using(Deadline.after(20)):
        assert 19.9 < deadline.capped(5, 60).remaining_s() <= 20
        assert 9.9 < deadline.capped(5, 10).remaining_s() <= 10
    assert deadline.current() is None


async def test_permits() -> None:
    """A permit past the limit is refused at once and says so; one that is given back can be taken again."""
    permits = Permits(2, retry_after_s=0.5)
    async with permits.take(), permits.take():
        assert permits.running == 2
        with pytest.raises(errors.ResourceExhausted) as caught:
            async with permits.take():
                pass
    assert caught.value.metadata == {"running": "2", "limit": "2"}
    assert caught.value.retry_after_s == 0.5
    async with permits.take():
        assert permits.running == 1


async def test_permit_of_a_cancelled_task() -> None:
    """A task that is cancelled gives its permit back."""
    permits = Permits(1, retry_after_s=0.5)

    async def work() -> None:
        async with permits.take():
            await asyncio.sleep(30)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    assert permits.running == 1
    task.cancel()
    await asyncio.wait([task])
    assert permits.running == 0
