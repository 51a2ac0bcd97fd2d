"""Admission: so many sequences and tokens on the engine at once; what does not fit waits, in a fair order."""

import asyncio
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import TypeAlias, cast

from generator_svc.engine import Work
from meshkit.errors import ResourceExhausted

_FEW_TENANTS = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """How many sequences and tokens run at once, how many sequences wait, and how tenants share.

    `max_running_tokens` 0 is no bound; a request that is larger runs alone. `shares` are the weights of tenants, 1 for
    those not named. Who is refused may come back after `retry_after_s` at least and `max_retry_after_s` at most.
    """

    max_running: int
    max_waiting: int
    max_running_tokens: int = 0
    retry_after_s: float = 1.0
    max_retry_after_s: float = 60.0
    shares: Mapping[str, float] = field(default_factory=dict)


class _State(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class _Tenant:
    """What one tenant has waiting, best first, and where in virtual time the service that it has had ends."""

    share: float
    finish: float = 0.0
    waiting: int = 0
    queue: list["Place"] = field(default_factory=list)
    turn: "_Turn | None" = None


# Where its next request starts in virtual time, a number that breaks ties, and the tenant.
_Turn: TypeAlias = tuple[float, int, _Tenant]


@dataclass(slots=True, eq=False)
class Place:
    """A request's place: it waits, runs and is gone; `ready` ends the wait, with an error where it was refused."""

    tenant: _Tenant
    rank: tuple[int, int]
    sequences: int
    tokens: int
    ready: asyncio.Future[ResourceExhausted | None]
    passed: int = 0
    state: _State = _State.WAITING

    @property
    def cost(self) -> int:
        """What its tenant is charged; where an engine does not count tokens, its sequences."""
        return max(self.tokens, self.sequences)


class Admission:
    """Gives places on one engine; belongs to one event loop, nothing to close.

    Between tenants it is start-time fair queueing (Goyal, Vin and Cheng, 1996): the tenant whose next request starts
    first in virtual time is next, so a tenant that sends little waits for no queue of another. Within a tenant the
    lower priority number is sooner, then who came first.
    """

    def __init__(self, limits: Limits, drain_s: Callable[[], float]) -> None:
        """`drain_s` tells how many seconds the work at hand will take."""
        self.limits = limits
        self.running = 0
        self.waiting = 0
        self.running_tokens = 0
        self.refusals = Counter[str]()
        self._drain_s = drain_s
        self._tenants: dict[str, _Tenant] = {}
        self._many_tenants = _FEW_TENANTS
        # Sorted, one of each tenant with a queue. The clock is the start of the request that had the last turn.
        self._turns: list[_Turn] = []
        self._clock = 0.0
        self._order = count()
        # It has had its turn but not enough room; others may pass it until they come to what it asks for itself.
        self._aside: Place | None = None

    def check(self, owner: str, sequences: int) -> None:
        """Raise ResourceExhausted where that many sequences would be refused, however few tokens they come to."""
        if not self.waiting and self.running + sequences <= self.limits.max_running:
            return
        own = self._tenants[owner].waiting if owner in self._tenants else 0
        if not self._may_wait(self.waiting + sequences - self.limits.max_waiting, own + sequences):
            self.refusals["overloaded"] += 1
            raise self._refusal(own)

    async def take(self, work: Work) -> Place:
        """A place, as soon as it is this request's turn and there is room; whoever takes it must `release` it.

        Raises ResourceExhausted at once where too much waits already, and later where the place in the queue goes to
        a tenant with a shorter one. Cancelling the wait leaves the queue.
        """
        place = self._enqueue(work)
        self._advance()
        self._bound_queue(place)
        try:
            refusal = await place.ready
        except asyncio.CancelledError:
            self.release(place, place.cost)
            raise
        if refusal:
            raise refusal
        return place

    def release(self, place: Place, unserved: int = 0) -> None:
        """Give a place back, for the second time without effect; its tenant is not charged for the tokens unserved."""
        state, place.state = place.state, _State.GONE
        if state is _State.RUNNING:
            self.running -= place.sequences
            self.running_tokens -= place.tokens
            self._refund(place.tenant, unserved)
        elif state is _State.WAITING:
            self._count_waiting(place, -1)
            self._unqueue(place)
        if self.running or self.waiting:
            self._advance()
        else:
            self._tenants.clear()
            self._clock = 0.0

    # --- The order ---

    def _enqueue(self, work: Work) -> Place:
        request, tenant = work.request, self._tenant(work.request.owner)
        rank = (request.priority, next(self._order))
        place = Place(tenant, rank, request.n, work.tokens, asyncio.get_running_loop().create_future())
        insort(tenant.queue, place, key=_rank)
        self._count_waiting(place, 1)
        if tenant.turn is None:
            self._schedule(tenant)
        return place

    def _unqueue(self, place: Place) -> None:
        tenant = place.tenant
        if place is self._aside:
            self._aside = None
            self._refund(tenant, place.cost)
            return
        del tenant.queue[bisect_left(tenant.queue, place.rank, key=_rank)]
        if not tenant.queue:
            self._schedule(tenant)

    def _pop(self) -> Place:
        """The request whose turn it is; its tenant is charged."""
        self._clock, _, tenant = self._turns[0]
        place = tenant.queue.pop(0)
        tenant.finish = self._clock + place.cost / tenant.share
        self._schedule(tenant)
        return place

    def _refund(self, tenant: _Tenant, tokens: int) -> None:
        if tokens:
            tenant.finish -= tokens / tenant.share
            self._schedule(tenant)

    def _schedule(self, tenant: _Tenant) -> None:
        """Put the tenant's turn where its next request starts; none while it has no queue."""
        if tenant.turn:
            del self._turns[bisect_left(self._turns, tenant.turn)]
            tenant.turn = None
        if tenant.queue:
            tenant.turn = (max(self._clock, tenant.finish), next(self._order), tenant)
            insort(self._turns, tenant.turn)

    def _tenant(self, owner: str) -> _Tenant:
        if owner not in self._tenants:
            if len(self._tenants) >= self._many_tenants:
                self._forget()
            self._tenants[owner] = _Tenant(self.limits.shares.get(owner, 1.0))
        return self._tenants[owner]

    def _forget(self) -> None:
        """Drop the tenants that are as good as new."""
        old = self._tenants.items()
        self._tenants = {owner: tenant for owner, tenant in old if tenant.waiting or tenant.finish > self._clock}
        self._many_tenants = max(2 * len(self._tenants), _FEW_TENANTS)

    # --- The room ---

    def _advance(self) -> None:
        """Start what fits, in order."""
        while place := self._next():
            place.state = _State.RUNNING
            self._count_waiting(place, -1)
            self.running += place.sequences
            self.running_tokens += place.tokens
            _wake(place, None)

    def _next(self) -> Place | None:
        if self._aside and self._fits(self._aside):
            place, self._aside = self._aside, None
            return place
        if self._turns and not self._aside and self._has_room() and not self._fits(self._head()):
            self._aside = self._pop()
        if not self._turns or not self._fits(head := self._head()):
            return None
        if self._aside:
            if self._aside.passed + head.cost > self._aside.cost:
                return None
            self._aside.passed += head.cost
        return self._pop()

    def _head(self) -> Place:
        return self._turns[0][2].queue[0]

    def _has_room(self) -> bool:
        """Whether anything could start, were it small."""
        limit = self.limits.max_running_tokens
        return self.running < self.limits.max_running and (not limit or self.running_tokens < limit)

    def _fits(self, place: Place) -> bool:
        limit = self.limits.max_running_tokens
        fits_tokens = not limit or not self.running or self.running_tokens + place.tokens <= limit
        return fits_tokens and self.running + place.sequences <= self.limits.max_running

    # --- The bound ---

    def _count_waiting(self, place: Place, sign: int) -> None:
        self.waiting += sign * place.sequences
        place.tenant.waiting += sign * place.sequences

    def _bound_queue(self, place: Place) -> None:
        """Where too much waits, refuse the last of the longest queue if it is longer than this one's, else this one."""
        excess = self.waiting - self.limits.max_waiting
        if not self._may_wait(excess, place.tenant.waiting):
            self._refuse(place, "overloaded")
        elif excess > 0:
            longest = max(self._tenants.values(), key=_waiting)
            while self.waiting > self.limits.max_waiting:
                self._refuse(self._last(longest), "dropped")

    def _last(self, tenant: _Tenant) -> Place:
        """The last in its queue; one that stands aside was before all of them."""
        return tenant.queue[-1] if tenant.queue else cast("Place", self._aside)

    def _may_wait(self, excess: int, own: int) -> bool:
        """Whether there is room, or the longest queue without the excess is as long as the one that wants it."""
        return excess <= 0 or max(map(_waiting, self._tenants.values()), default=0) - excess >= own

    def _refuse(self, place: Place, why: str) -> None:
        self.refusals[why] += 1
        self.release(place)
        _wake(place, self._refusal(place.tenant.waiting))

    def _refusal(self, tenant_waiting: int) -> ResourceExhausted:
        limits = self.limits
        state = {
            "running": self.running,
            "limit": limits.max_running,
            "waiting": self.waiting,
            "running_tokens": self.running_tokens,
            "token_limit": limits.max_running_tokens,
            "tenant_waiting": tenant_waiting,
        }
        return ResourceExhausted(
            "OVERLOADED",
            "too much waits for the engine",
            metadata={name: str(number) for name, number in state.items()},
            retry_after_s=min(max(self._drain_s(), limits.retry_after_s), limits.max_retry_after_s),
        )


def _rank(place: Place) -> tuple[int, int]:
    return place.rank


def _waiting(tenant: _Tenant) -> int:
    return tenant.waiting


def _wake(place: Place, refusal: ResourceExhausted | None) -> None:
    # Done already where its task was cancelled and has not run since; it releases the place when it does.
    if not place.ready.done():
        place.ready.set_result(refusal)
