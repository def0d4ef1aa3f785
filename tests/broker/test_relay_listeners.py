"""Which subscriptions the broker is told of: of jobs' topics alone, and so many a second of one machine."""

from __future__ import annotations

from airunner.broker.relay.listeners import BURST_S, SUBSCRIPTIONS_A_SECOND, Listeners
from airunner.transport.ports import Subscription

AT_ONCE = int(SUBSCRIPTIONS_A_SECOND * BURST_S)


def topic(number: int) -> bytes:
    return number.to_bytes(16, "big")


def come(number: int, key: str = "m") -> Subscription:
    return Subscription(topic(number), wanted=True, key=key)


def gone(number: int) -> Subscription:
    return Subscription(topic(number), wanted=False, key=None)


def test_of_what_is_no_jobs_topic_nothing_is_told() -> None:
    listeners = Listeners()
    for text in (b"", b"short", b"l" * 400):
        for wanted in (True, False):
            assert not listeners.record(Subscription(text, wanted=wanted, key="m"), 0)


def test_a_machine_is_told_of_so_often_a_second_and_others_all_the_same() -> None:
    listeners = Listeners()
    assert all(listeners.record(come(number), 0) for number in range(AT_ONCE))
    assert not listeners.record(come(AT_ONCE), 0)
    assert listeners.record(come(AT_ONCE, "another"), 0)
    assert listeners.record(come(AT_ONCE), 2_000)


def test_who_was_not_told_of_leaves_first_and_untold() -> None:
    listeners = Listeners()
    assert listeners.record(come(0, "another"), 0)
    while listeners.record(come(1), 0):
        pass
    assert not listeners.record(come(0), 0)
    assert not listeners.record(gone(0), 0), "the other one still listens"
    assert listeners.record(gone(0), 0)
    assert not listeners.record(gone(0), 0)
