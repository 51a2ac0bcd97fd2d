"""Places on the engine: bounded, in a fair order, never lost."""

from collections.abc import Iterable

import pytest

from generator_svc.engine import Prompt, Request, Work
from meshkit.errors import ResourceExhausted
from tests.generator_svc.waiting_line import Line


def _owners(names: Iterable[str]) -> str:
    """Of names such as `a17`, the tenants."""
    return "".join(name[0] for name in names)


async def test_a_flood_delays_no_other_tenant() -> None:
    """A tenant has 200 waiting, all more urgent than another's single one, which came last: that is next."""
    line = Line()
    for number in range(201):
        await line.ask(f"a{number}", "acme", priority=-100)
    await line.ask("b0", "rivals", priority=100)
    assert line.started == ["a0"]

    assert (await line.order())[1] == "b0"


async def test_tenants_share_by_tokens_not_by_requests() -> None:
    """One asks for thrice as many tokens a time, so it gets a third of the turns."""
    line = Line()
    for number in range(30):
        await line.ask(f"a{number}", "acme", tokens=10)
        await line.ask(f"b{number}", "rivals", tokens=30)

    turns = _owners((await line.order())[:40])
    assert (turns.count("a"), turns.count("b")) == (30, 10)


async def test_shares_weigh_tenants() -> None:
    """With a share of 3 a tenant gets three turns for each one of another."""
    line = Line(shares={"acme": 3.0})
    for number in range(30):
        await line.ask(f"b{number}", "rivals")
        await line.ask(f"a{number}", "acme")

    turns = _owners((await line.order())[:40])
    assert (turns.count("a"), turns.count("b")) == (30, 10)


async def test_tokens_that_were_not_made_cost_nothing() -> None:
    """Asking for room that is never used, as who sets no max_tokens does, is not charged: the turns alternate."""
    line = Line()
    for number in range(10):
        await line.ask(f"a{number}", "acme", tokens=1000)
        await line.ask(f"b{number}", "rivals", tokens=10)
    for name in line.running():
        await line.end(name, unserved=990 if name.startswith("a") else 0)

    assert _owners(line.started).startswith("abababab")


async def test_a_tenant_that_was_away_saves_nothing_up() -> None:
    """After a hundred turns of another it is next, once, and not for a hundred turns."""
    line = Line()
    for number in range(104):
        await line.ask(f"a{number}", "acme")
    for name in [f"a{number}" for number in range(100)]:
        await line.end(name)
    for number in range(3):
        await line.ask(f"b{number}", "rivals")

    assert _owners((await line.order())[100:]) == "ababab" + "a"


async def test_within_a_tenant_the_urgent_come_first() -> None:
    """A lower number is sooner, the same number in the order of arrival."""
    line = Line()
    for name, priority in {"running": 0, "late": 5, "first": 0, "second": 0, "urgent": -5}.items():
        await line.ask(name, priority=priority)

    assert await line.order() == ["running", "urgent", "first", "second", "late"]


async def test_tokens_bound_what_runs() -> None:
    """Of what the sequences would allow only that runs which the tokens allow too."""
    line = Line(max_running=10, max_running_tokens=100)
    for name in ("a", "b", "c"):
        await line.ask(name, tokens=40)
    assert (line.admission.running, line.admission.running_tokens, line.admission.waiting) == (2, 80, 1)

    await line.end("a")
    assert line.started == ["a", "b", "c"]


async def test_what_is_larger_than_the_budget_runs_alone() -> None:
    """It waits until nothing runs, and nothing starts beside it."""
    line = Line(max_running=10, max_running_tokens=100)
    await line.ask("small", tokens=60)
    await line.ask("huge", tokens=500)
    await line.end("small")
    await line.ask("next", tokens=1)
    assert (line.started, line.admission.running_tokens) == (["small", "huge"], 500)

    await line.end("huge")
    assert line.started[-1] == "next"


@pytest.mark.parametrize("owner", ["acme", "rivals"])
async def test_small_ones_pass_a_big_one_but_not_for_ever(owner: str) -> None:
    """While it waits for 80 of 100 tokens no room is wasted; when 80 have passed it, it is next whatever comes."""
    line = Line(max_running=10, max_running_tokens=100)
    await line.ask("s0", tokens=50)
    await line.ask("s1", tokens=40)
    await line.ask("big", owner, tokens=80)
    for number in range(2, 40):
        await line.ask(f"s{number}", tokens=10)
        await line.ask(f"o{number}", "others", tokens=10)
    order = await line.order()

    # 80 tokens pass, in eights of 10; what starts before it is that and no more.
    assert order.index("big") == 2 + 8
    assert len(order) == 2 + 1 + 76


async def test_many_sequences_wait_for_as_many_slots() -> None:
    """They are admitted together, and small ones do not take the slots away one by one."""
    line = Line(max_running=4)
    for number in range(4):
        await line.ask(f"a{number}", tokens=0)
    await line.ask("four", tokens=0, n=4)
    for number in range(4, 20):
        await line.ask(f"a{number}", tokens=0)
    assert line.admission.waiting == 20

    assert (await line.order()).index("four") <= 4 + 4


async def test_too_much_waiting_is_refused_with_the_state() -> None:
    """Who comes to a full queue learns how full, and when to come back; `check` says so before anything is read."""
    line = Line(max_running=2, max_running_tokens=20, max_waiting=1, drain_s=7.5)
    for name in ("a", "b", "waits", "refused"):
        await line.ask(name)

    refusal = line.refusal("refused")
    assert (refusal.reason, refusal.retry_after_s) == ("OVERLOADED", 7.5)
    assert refusal.metadata == {
        "running": "2",
        "limit": "2",
        "waiting": "1",
        "running_tokens": "20",
        "token_limit": "20",
        "tenant_waiting": "1",
    }
    with pytest.raises(ResourceExhausted) as caught:
        line.admission.check("acme", 1)
    assert caught.value.metadata == refusal.metadata
    assert line.admission.refusals == {"overloaded": 2}


@pytest.mark.parametrize(("drain_s", "told_s"), [(0, 1), (30, 30), (3600, 60)])
async def test_the_time_to_come_back_has_bounds(drain_s: float, told_s: float) -> None:
    """It is the time that the work at hand takes, where that is sane."""
    line = Line(max_waiting=0, drain_s=drain_s)
    await line.ask("runs")
    await line.ask("refused")

    assert line.refusal("refused").retry_after_s == told_s


async def test_a_full_queue_makes_room_at_the_cost_of_the_longest() -> None:
    """A newcomer with a shorter queue drops the last and least urgent of the longest; its own tenant's is refused."""
    line = Line(max_waiting=4)
    await line.ask("runs")
    for name, priority in {"a1": 1, "a2": 0, "a3": 1, "a4": -1}.items():
        await line.ask(name, "acme", priority=priority)
    line.admission.check("rivals", 1)
    await line.ask("b1", "rivals")
    await line.ask("b2", "rivals")
    # Now two wait of each: taking one from either would only turn it round.
    await line.ask("b3", "rivals")
    await line.ask("a5", "acme", priority=-100)

    refused = [name for name, task in line.tasks.items() if task.done() and name != "runs"]
    assert refused == ["a1", "a3", "b3", "a5"]
    assert line.refusal("a3").metadata["tenant_waiting"] == "3"
    assert line.admission.refusals == {"dropped": 2, "overloaded": 2}
    assert await line.order() == ["runs", "b1", "a4", "b2", "a2"]


async def test_who_stands_aside_can_be_dropped_too() -> None:
    """A tenant whose one big request fills the queue makes room for another's small one."""
    line = Line(max_running=4, max_waiting=3)
    for number in range(2):
        await line.ask(f"a{number}")
    await line.ask("big", n=3)
    await line.ask("b0", "rivals", n=3)
    await line.ask("c0", "others", tokens=5)
    await line.ask("c1", "others", tokens=5)
    await line.ask("c2", "others", tokens=5)

    assert line.started == ["a0", "a1", "c0", "c1"]
    assert line.refusal("b0").reason == "OVERLOADED"
    assert line.refusal("big").reason == "OVERLOADED"
    assert await line.order() == ["a0", "a1", "c0", "c1", "c2"]


async def test_who_leaves_the_queue_costs_nothing() -> None:
    """Cancelled waiters are gone at once, in the queue, aside for want of room, or just admitted."""
    line = Line(max_running=3, max_running_tokens=30)
    for name, tokens in {"runs": 20, "aside": 25, "queued": 25, "last": 25}.items():
        await line.ask(name, tokens=tokens)
    await line.leave("aside")
    await line.leave("queued")
    assert (line.admission.waiting, line.admission.running) == (1, 1)

    line.tasks["last"].cancel()
    line.admission.release(line.tasks["runs"].result())
    await line.ask("rival", "rivals", tokens=30)
    assert line.started == ["runs", "rival"]
    assert (line.admission.waiting, line.admission.running) == (0, 1)


async def test_who_leaves_from_aside_gives_its_turn_back() -> None:
    """Its tenant is next again, as if it had not been there."""
    line = Line(max_running=9, max_running_tokens=30)
    for name, owner, tokens in [("o0", "others", 20), ("a0", "acme", 25), ("o1", "others", 10)]:
        await line.ask(name, owner, tokens=tokens)
    await line.leave("a0")
    await line.ask("a1", "acme", tokens=25)
    await line.ask("b0", "rivals", tokens=25)

    assert await line.order() == ["o0", "o1", "a1", "b0"]


async def test_tenants_who_are_gone_are_forgotten() -> None:
    """Ten thousand tenants that came and went leave no more than a handful behind."""
    line = Line(max_running=2)
    await line.ask("stays", "stays")
    for number in range(10_000):
        owner = f"tenant {number % 5000}"
        place = await line.admission.take(Work(Request("one", Prompt("Go"), owner=owner), 0.0, prompt_tokens=5))
        line.admission.release(place, 5)
    assert len(line.admission._tenants) < 200

    await line.end("stays")
    assert not line.admission._tenants
