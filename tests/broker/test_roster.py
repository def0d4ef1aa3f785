"""Who is there, as far as the broker has heard: bounded, forgotten in time, and nothing that a promise rests on."""

from __future__ import annotations

import pytest

from airunner.broker import roster as module
from airunner.broker.roster import ACTIVE_MS, FORGOTTEN_MS, Roster
from airunner.protocol.replies import AgentSummary
from airunner.protocol.requests import PAGE_SIZE_MAX, DequeueJob, UpdateJob
from tests.broker.stage import WALL_MS
from tests.counting import counted_calls

VISIBILITY_MS = 60_000


def _dequeue(agent: str, slots: int = 1, version: str = "", wait_ms: int = 0) -> DequeueJob:
    return DequeueJob(
        agent=agent,
        agent_slots=slots,
        version=version,
        queues=("default",),
        visibility_ms=VISIBILITY_MS,
        wait_ms=wait_ms,
        token_seed=bytes(32),
        stdin=True,
        knows=("tree",),
    )


def _heartbeat(agent: str | None, slots: int = 1, trouble: str = "") -> UpdateJob:
    return UpdateJob(agent=agent, agent_slots=slots, trouble=trouble, leases=(), visibility_ms=VISIBILITY_MS)


def _names(roster: Roster, tenant: str = "home", *, now_ms: int = WALL_MS, **leases: int) -> list[str]:
    return [one.name for one in roster.page(tenant, "", leases, now_ms).agents]


def test_an_agent_is_as_it_last_said() -> None:
    roster = Roster()
    roster.record_request("home", _dequeue("a", slots=2, version="0.1"), WALL_MS)
    roster.record_request("home", _dequeue("a", slots=4, version="0.2"), WALL_MS + 5)
    page = roster.page("home", "", {"a": 3}, WALL_MS + 9)
    assert page.agents == (
        AgentSummary(
            name="a",
            slots=4,
            leases=3,
            seen_ms=WALL_MS + 5,
            silent_ms=4,
            version="0.2",
            queues=("default",),
            stdin=True,
            knows=("tree",),
        ),
    )
    assert not page.more


@pytest.mark.parametrize(
    ("scope", "seen"), [(None, [("default",)]), (frozenset({"default"}), [("default",)]), (frozenset({"b"}), [])]
)
def test_an_agent_and_its_queues_are_shown_to_those_who_may_know_them_and_a_heartbeat_keeps_them(
    scope: frozenset[str] | None, seen: list[tuple[str, ...]]
) -> None:
    roster = Roster()
    roster.record_request("home", _dequeue("a"), WALL_MS)
    roster.record_request("home", _heartbeat("a"), WALL_MS + 5)
    agents = roster.page("home", "", {"a": 1}, WALL_MS + 9, scope).agents
    assert [one.queues for one in agents if one.stdin] == seen


def test_an_agents_trouble_stands_until_it_says_otherwise_or_waits_for_jobs() -> None:
    roster = Roster()
    for agent in ("a", "b"):
        roster.record_request("home", _heartbeat(agent, trouble="out of disk"), WALL_MS)
        roster.record_request("home", _dequeue(agent), WALL_MS + 1)  # which ends the wait of before
    assert [one.trouble for one in roster.page("home", "", {}, WALL_MS + 2).agents] == ["out of disk"] * 2
    assert roster.troubled(WALL_MS + 2) == 2
    roster.record_request("home", _heartbeat("a"), WALL_MS + 3)
    assert roster.troubled(WALL_MS + 3) == 1
    roster.record_request("home", _dequeue("b", wait_ms=30_000), WALL_MS + 3)
    assert roster.troubled(WALL_MS + 3) == 0


def test_who_asks_does_not_pay_for_how_many_agents_are_in_trouble() -> None:
    roster = Roster()
    steps: list[int] = []
    for last in (4, 400):
        for number in range(last):
            roster.record_request("home", _heartbeat(f"agent-{number}", trouble="out of disk"), WALL_MS)
        with counted_calls() as calls:
            count = roster.troubled(WALL_MS + 1)
        assert count == last
        steps.append(calls.total())
    assert steps[0] == steps[1]


def test_a_heartbeat_is_heard_with_a_name_alone_and_shown_to_its_tenant_alone() -> None:
    roster = Roster()
    roster.record_request("home", _heartbeat(None), WALL_MS)
    assert _names(roster) == []
    roster.record_request("home", _heartbeat("idle"), WALL_MS)
    roster.record_request("other", _dequeue("b"), WALL_MS)
    assert (_names(roster), _names(roster, "other")) == (["idle"], ["b"])


def test_who_is_silent_for_long_is_forgotten_unless_it_holds_leases() -> None:
    roster = Roster()
    for name in ("busy", "idle"):
        roster.record_request("home", _dequeue(name), WALL_MS)
    roster.record_request("home", _heartbeat("idle", trouble="out of disk"), WALL_MS)
    assert _names(roster, now_ms=WALL_MS + FORGOTTEN_MS - 1, busy=1) == ["busy", "idle"]
    assert roster.troubled(WALL_MS + FORGOTTEN_MS - 1) == 1
    assert _names(roster, now_ms=WALL_MS + FORGOTTEN_MS, busy=1) == ["busy"]
    assert roster.troubled(WALL_MS + FORGOTTEN_MS) == 0


def test_agents_are_paged_by_name() -> None:
    roster = Roster()
    names = [f"agent-{n:03}" for n in range(PAGE_SIZE_MAX + 3)]
    for name in reversed(names):
        roster.record_request("home", _dequeue(name), WALL_MS)
    first = roster.page("home", "", {}, WALL_MS)
    assert ([one.name for one in first.agents], first.more) == (names[:PAGE_SIZE_MAX], True)
    second = roster.page("home", first.agents[-1].name, {}, WALL_MS)
    assert ([one.name for one in second.agents], second.more) == (names[PAGE_SIZE_MAX:], False)


def test_of_very_many_agents_and_holders_the_longest_silent_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGENTS_MAX", 2)
    monkeypatch.setattr(module, "HOLDERS_MAX", 2)
    roster = Roster()
    for name in ("a", "b", "a", "c"):
        roster.record_request("home", _dequeue(name), WALL_MS)
        roster.record_holder("home", name, 1, name.encode(), name, WALL_MS)
    assert _names(roster) == ["a", "c"]
    assert [roster.holder("home", job_id) for job_id in ("a", "b", "c")] == [b"a", None, b"c"]


def test_active_agents_are_counted_by_what_they_do() -> None:
    roster = Roster()
    for agent in ("idle", "busy", "gone"):
        roster.record_request("home", _dequeue(agent, slots=2), WALL_MS)
        roster.record_request("other", _dequeue(agent), WALL_MS)
    for job, agent in (("1", "busy"), ("2", "busy"), ("3", "gone")):
        roster.record_holder("home", job, 1, b"peer", agent, WALL_MS)
    roster.record_request("home", _heartbeat("ill", trouble="no space"), WALL_MS)
    assert roster.counts(WALL_MS) == ({"idle": 4, "busy": 2, "troubled": 1}, 3 * 3 + 1)
    later_ms = WALL_MS + ACTIVE_MS
    roster.record_request("home", _heartbeat("busy", slots=2), later_ms)
    roster.record_holder("home", "1", 1, b"peer", "busy", later_ms)
    assert roster.counts(later_ms) == ({"idle": 0, "busy": 1, "troubled": 0}, 2)
    roster.forget_holder("home", "1")
    assert roster.counts(later_ms).by_state["idle"] == 1


def test_what_agents_say_of_themselves_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGENTS_BYTES_MAX", 4 * module.AGENT_BYTES + 100)
    roster = Roster()
    for name in ("a", "b", "c"):
        roster.record_request("home", _dequeue(name), WALL_MS)
    for _ in range(3):  # said again, it takes no more
        talkative = UpdateJob(agent="d", leases=(), visibility_ms=1_000, trouble="x" * module.AGENT_BYTES)
        roster.record_request("home", talkative, WALL_MS)
    assert _names(roster) == ["b", "c", "d"]
    roster.record_request("other", _dequeue("a"), WALL_MS)
    assert _names(roster) == ["b", "c", "d"]
