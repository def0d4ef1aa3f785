"""How much may be stored with how much room left: first new jobs are refused, then events, and never an end."""

from __future__ import annotations

import pytest

from airunner.broker.store.room import (
    BALLAST_BYTES_MAX,
    ENDING_BYTES_MAX,
    TIGHT_JOURNAL_BYTES,
    Room,
    Space,
    ballast_bytes,
    room_of,
)

MIB = 1_048_576


@pytest.mark.parametrize(
    ("space", "room"),
    [
        (Space(free_bytes=256 * MIB), Room.AMPLE),
        (Space(free_bytes=256 * MIB - 1), Room.RUNNING),
        (Space(free_bytes=250 * MIB, ballast_bytes=8 * MIB), Room.AMPLE),  # the ballast is of the reserve
        (Space(free_bytes=64 * MIB), Room.RUNNING),
        (Space(free_bytes=64 * MIB - 1, ballast_bytes=8 * MIB), Room.ENDING),  # which nothing new is to use
        (Space(free_bytes=300 * MIB, owed_bytes=60 * MIB), Room.RUNNING),
        (Space(free_bytes=70 * MIB, owed_bytes=16 * MIB), Room.ENDING),
        (Space(free_bytes=100 * MIB, reusable_bytes=200 * MIB), Room.AMPLE),
        (Space(free_bytes=0, reusable_bytes=300 * MIB), Room.ENDING),  # the journal has to go somewhere
        (Space(free_bytes=0, reusable_bytes=300 * MIB, journal_bytes=TIGHT_JOURNAL_BYTES), Room.AMPLE),
    ],
)
def test_room_is_what_is_left_once_all_that_is_owed_is_paid(space: Space, room: Room) -> None:
    assert room_of(space, 256 * MIB) is room


def test_what_a_batch_takes_is_counted_in_the_journal_and_in_the_store() -> None:
    space = Space(free_bytes=ENDING_BYTES_MAX + 20 * MIB)
    assert room_of(space, 256 * MIB, 10 * MIB) is Room.RUNNING
    assert room_of(space, 256 * MIB, 10 * MIB + 1) is Room.ENDING
    assert room_of(Space(free_bytes=0), 0) is Room.AMPLE, "without a reserve everything is tried"


def test_the_ballast_is_a_part_of_a_small_reserve_and_bounded_of_a_large_one() -> None:
    assert ballast_bytes(0) == 0
    assert ballast_bytes(4 * MIB) == MIB
    assert ballast_bytes(1 << 40) == BALLAST_BYTES_MAX
