"""The numbers of a change stream show that a message is missing, whichever it is."""

from __future__ import annotations

import pytest

from airunner.protocol.changes import SENDERS_MAX, JobChanges, Numbers
from airunner.protocol.replies import QueueMode

ONE, TWO = b"1" * 8, b"2" * 8


def message(number: int, sender: bytes = ONE) -> JobChanges:
    return JobChanges(sender=sender, number=number, modes={"q": QueueMode.PAUSED})


def reminder(number: int, sender: bytes = ONE) -> JobChanges:
    return JobChanges(sender=sender, number=number)


@pytest.mark.parametrize(
    ("messages", "are_next"),
    [
        ((message(1), message(2), reminder(2), message(3)), [True, True, True, True]),
        ((message(1), message(3), message(4)), [True, False, True]),
        ((message(1), reminder(2), message(3)), [True, False, True]),
        ((reminder(0), message(7), reminder(7)), [True, False, True]),
        ((message(2), message(1), message(2)), [False, False, True]),
        ((message(1), message(1, TWO), message(2), message(3, TWO)), [True, True, True, False]),
        ((JobChanges(sender=ONE, number=1, left_out=True), message(2)), [False, True]),
    ],
)
def test_a_gap_is_noticed_once(messages: tuple[JobChanges, ...], are_next: list[bool]) -> None:
    numbers = Numbers()
    assert [numbers.is_next(each) for each in messages] == are_next


def test_the_numbers_of_brokers_that_are_gone_are_forgotten() -> None:
    numbers = Numbers()
    for sender in range(SENDERS_MAX + 1):
        assert numbers.is_next(message(1, bytes([sender]) * 8))
    assert not numbers.is_next(message(2, bytes(8)))
