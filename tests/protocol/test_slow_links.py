"""What a Lazy Pirate promises on slow links: what moves is a sign of life, and large requests have more time."""

from __future__ import annotations

import msgspec

from airunner.protocol.reconnect import (
    HEARTBEAT_MS,
    HIDDEN_BYTES_MAX,
    MISS_BYTES,
    MISSES_MAX,
    MOVING_MS_MAX,
    PING_ID,
    RESEND_AFTER_MS,
    Connect,
    Deliver,
    Disconnect,
    LazyPirate,
    Resize,
    Send,
)
from airunner.protocol.replies import Pong
from tests.protocol.asking import BUSY, ONE, TWO, asking, pirate, sent


def silent_until_dropped(asker: LazyPirate, *, moved: bool = False) -> int:
    """When the connection is given up, if nothing is ever heard."""
    while True:
        now_ms = asker.deadline_ms()
        if Disconnect() in asker.tick(now_ms, moved=moved):
            return now_ms


def test_bytes_that_move_between_pings_are_signs_of_life_but_not_for_ever() -> None:
    asker = asking(10**9)
    assert sent(asker.tick(HEARTBEAT_MS, moved=True)) == [PING_ID], "what moved before may have been the request"
    for beat in range(2, 100):
        assert asker.tick(beat * HEARTBEAT_MS - 1, moved=True) == []
        assert asker.tick(beat * HEARTBEAT_MS) == []
    assert silent_until_dropped(asker) == (99 + MISSES_MAX) * HEARTBEAT_MS
    endless_ms = silent_until_dropped(asking(10**9), moved=True)
    assert MOVING_MS_MAX <= endless_ms <= MOVING_MS_MAX + (MISSES_MAX + 1) * HEARTBEAT_MS


def test_what_may_still_be_on_its_way_is_not_asked_again() -> None:
    asker = asking(3 * HEARTBEAT_MS, 10**9)
    asker.heard(TWO, BUSY, 0)
    asker.tick(HEARTBEAT_MS)
    asker.tick(2 * HEARTBEAT_MS, moved=True)
    assert ONE not in sent(asker.tick(3 * HEARTBEAT_MS, moved=True))
    assert sent(asker.tick(6 * HEARTBEAT_MS)) == [PING_ID, ONE]


def test_what_a_busy_broker_is_to_be_asked_again_waits_no_longer_while_bytes_move() -> None:
    asker = asking(RESEND_AFTER_MS, RESEND_AFTER_MS)
    asker.heard(ONE, msgspec.structs.replace(BUSY, retry_ms=3 * HEARTBEAT_MS), 1)
    asked_ms = 0
    while ONE not in sent(asker.tick(asked_ms, moved=True)):
        asked_ms = asker.deadline_ms()
    assert 3 * HEARTBEAT_MS <= asked_ms < RESEND_AFTER_MS


def test_a_large_request_earns_the_time_that_it_takes_over_the_slowest_link_and_no_more() -> None:
    def given_up_ms(size: int) -> int:
        asker = pirate()
        asker.ask(ONE, bytes(size), 0, resend_after_ms=10**9)
        return silent_until_dropped(asker)

    asker = pirate()
    asker.ask(ONE, bytes(MISS_BYTES), 0, resend_after_ms=HEARTBEAT_MS)
    assert sent(asker.tick(HEARTBEAT_MS)) == [PING_ID], "not asked again while the slowest link may still carry it"
    assert ONE in sent(asker.tick(2 * HEARTBEAT_MS))
    small_ms = (MISSES_MAX + 1) * HEARTBEAT_MS
    assert given_up_ms(MISS_BYTES - 1) == small_ms
    assert given_up_ms(4 * MISS_BYTES) == small_ms + 4 * HEARTBEAT_MS
    assert given_up_ms(10**6) == small_ms + HIDDEN_BYTES_MAX // MISS_BYTES * HEARTBEAT_MS


def test_what_can_be_asked_in_a_smaller_piece_is_not_sent_again_as_it_was_unless_it_never_was() -> None:
    asker = pirate()
    asker.ask(ONE, b"much", 0, resend_after_ms=500, resizable=True)
    asker.dropped(1)
    reopened_ms = asker.deadline_ms()
    assert asker.tick(reopened_ms) == [Connect("b"), Resize(ONE)]
    assert asker.resized(ONE, TWO, b"less", reopened_ms) == [Send(TWO, b"less")]
    assert asker.heard(ONE, Pong(), reopened_ms + 1) == []
    assert asker.heard(TWO, Pong(), reopened_ms + 2) == [Deliver(TWO, Pong())]
    paused = asking(RESEND_AFTER_MS)
    paused.dropped(1)
    assert paused.ask(TWO, b"much", 1, resizable=True) == []
    assert Send(TWO, b"much") in paused.tick(paused.deadline_ms())
