"""Who listens to which jobs, how many a tenant may listen to, and what counts."""

from __future__ import annotations

import pytest

from airunner.broker import watchers as module
from airunner.broker.watchers import GRANT_MS, Watchers
from airunner.protocol.errors import Quota

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16
HERE, THERE = "here", "there"
LATER_MS = 1_000 * GRANT_MS


@pytest.fixture
def watchers() -> Watchers:
    """A tenant may listen to one job."""
    return Watchers(1)


def grants(watchers: Watchers, topic: bytes, now_ms: int = 0) -> bool:
    """Whether the tenant may listen to one more."""
    try:
        watchers.grant("t", topic, HERE, now_ms)
    except Quota:
        return False
    return True


def test_so_many_and_no_more_and_each_tenant_by_itself() -> None:
    watchers = Watchers(2)
    for topic in (A, B, A):
        watchers.grant("t", topic, HERE, 0)
    with pytest.raises(Quota, match="listens to 2 jobs, and its limit is 2"):
        watchers.grant("t", C, HERE, 0)
    watchers.grant("other", C, HERE, 0)
    assert not grants(watchers, C, GRANT_MS - 1)
    assert grants(watchers, C, GRANT_MS), "a key that is not used counts no longer than a while"


@pytest.mark.parametrize("machine", [HERE, None])
def test_what_is_heard_counts_as_long_as_it_is(watchers: Watchers, machine: str | None) -> None:
    watchers.grant("t", A, HERE, 0)
    assert watchers.add_listener(A, HERE)
    assert watchers.has_listener(A)
    assert not grants(watchers, B, LATER_MS)
    watchers.remove_listener(A, machine)
    assert not watchers.has_listener(A)
    watchers.grant("t", B, HERE, LATER_MS)


def test_a_job_is_heard_until_the_last_of_its_listeners_leaves(watchers: Watchers) -> None:
    for machine in (HERE, THERE):
        watchers.grant("t", A, machine, 0)
        assert watchers.add_listener(A, machine)
    watchers.remove_listener(A, HERE)
    assert watchers.has_listener(A)
    assert not grants(watchers, B, LATER_MS)
    watchers.remove_listener(A, None)
    assert not watchers.has_listener(A)
    assert watchers.add_listener(A, HERE)
    assert not grants(watchers, B, LATER_MS), "who comes back counts again"
    watchers.remove_listener(A, None)
    watchers.grant("t", B, HERE, LATER_MS)


def test_a_stranger_uses_up_nothing_of_a_tenants(watchers: Watchers) -> None:
    """Whoever listens to everything sees the topics, and can subscribe to each."""
    watchers.grant("t", A, HERE, 0)
    assert not watchers.add_listener(A, THERE)
    assert not watchers.has_listener(A)
    watchers.grant("t", B, HERE, GRANT_MS)
    assert watchers.add_listener(B, HERE)
    assert not watchers.add_listener(B, THERE)
    watchers.remove_listener(B, THERE)
    assert watchers.has_listener(B), "who was never served leaves nothing"
    watchers.remove_listener(B, HERE)
    watchers.grant("t", C, HERE, LATER_MS)


def test_keys_that_were_collected_open_no_more_at_once_than_the_tenant_may(watchers: Watchers) -> None:
    watchers.grant("t", A, HERE, 0)
    watchers.grant("t", B, HERE, GRANT_MS)
    assert watchers.add_listener(A, HERE)
    assert not watchers.add_listener(B, HERE)
    assert watchers.add_listener(A, HERE)
    watchers.remove_listener(A, HERE)
    watchers.remove_listener(A, HERE)
    assert watchers.add_listener(B, HERE)


def test_topics_that_nobody_was_given_here_are_served_and_are_no_tenants(watchers: Watchers) -> None:
    assert watchers.add_listener(A, HERE)
    assert watchers.has_listener(A)
    watchers.remove_listener(B, HERE)
    watchers.grant("t", C, HERE, 0)


def test_without_a_bound_every_reader_may_listen() -> None:
    watchers = Watchers()
    for number in range(1_000):
        watchers.grant("t", number.to_bytes(16), HERE, 0)
        assert watchers.add_listener(number.to_bytes(16), THERE)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOPICS_MAX", 2)
    monkeypatch.setattr(module, "MACHINES_MAX", 1)
    monkeypatch.setattr(module, "LISTENED_MAX", 1)
    watchers = Watchers(3)
    for topic in (A, B, C):
        watchers.grant("t", topic, HERE, 0)
    watchers.grant("t", A, HERE, 0)
    watchers.grant("t", A, THERE, 0)
    assert not watchers.add_listener(A, HERE), "the last machine alone is remembered"
    assert watchers.add_listener(A, THERE)
    assert watchers.has_listener(B), "beyond what is counted everything may be heard"


def test_when_all_listeners_have_left_at_once_their_places_are_kept_for_a_while(watchers: Watchers) -> None:
    watchers.grant("t", A, HERE, 0)
    assert watchers.add_listener(A, HERE)
    watchers.all_listeners_left(LATER_MS)
    assert not watchers.has_listener(A)
    assert not grants(watchers, B, LATER_MS)
    assert watchers.add_listener(A, HERE), "they come back by themselves"
    watchers.all_listeners_left(LATER_MS)
    watchers.grant("t", B, HERE, LATER_MS + GRANT_MS)
