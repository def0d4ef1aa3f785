"""How many jobs a tenant may listen to, and what counts."""

from __future__ import annotations

import pytest

from airunner.broker import watchers as module
from airunner.broker.watchers import GRANT_MS, Watchers
from airunner.protocol.errors import Quota

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


def test_so_many_and_no_more_and_each_tenant_by_itself() -> None:
    watchers = Watchers(2)
    for topic in (A, B, A):
        watchers.grant("t", topic, 0)
    with pytest.raises(Quota, match="listens to 2 jobs, and 2 are the most"):
        watchers.grant("t", C, 0)
    watchers.grant("other", C, 0)


def test_a_key_that_is_not_used_counts_no_longer_than_a_while() -> None:
    watchers = Watchers(1)
    watchers.grant("t", A, 0)
    with pytest.raises(Quota):
        watchers.grant("t", B, GRANT_MS - 1)
    watchers.grant("t", B, GRANT_MS)


def test_what_is_heard_counts_as_long_as_it_is() -> None:
    watchers = Watchers(1)
    watchers.grant("t", A, 0)
    watchers.subscribed(A)
    with pytest.raises(Quota):
        watchers.grant("t", B, 1_000 * GRANT_MS)
    watchers.left(A)
    watchers.grant("t", B, 1_000 * GRANT_MS)


def test_who_comes_back_counts_again() -> None:
    watchers = Watchers(1)
    watchers.grant("t", A, 0)
    watchers.subscribed(A)
    watchers.left(A)
    watchers.subscribed(A)
    with pytest.raises(Quota):
        watchers.grant("t", B, GRANT_MS)


def test_topics_that_nobody_was_given_are_nobodys() -> None:
    watchers = Watchers(1)
    watchers.subscribed(A)
    watchers.left(B)
    watchers.grant("t", C, 0)


def test_without_a_bound_everybody_may() -> None:
    watchers = Watchers()
    for number in range(1_000):
        watchers.grant("t", number.to_bytes(16), 0)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOPICS_MAX", 2)
    watchers = Watchers(3)
    for topic in (A, B, C):
        watchers.grant("t", topic, 0)
    watchers.grant("t", A, 0)
