"""What a Lazy Pirate promises, whatever the broker and the network do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airunner.protocol.coding import refusal
from airunner.protocol.errors import NotFound
from airunner.protocol.names import RequestId
from airunner.protocol.reconnect import (
    BACKOFF_FIRST_MS,
    BACKOFF_LAST_MS,
    HEARTBEAT_MS,
    MISSES_MAX,
    PING_ID,
    RESEND_AFTER_LAST_MS,
    RESEND_AFTER_MS,
    Action,
    Connect,
    Deliver,
    Disconnect,
    Send,
    full_jitter_ms,
)
from airunner.protocol.replies import Pong, Refused
from tests.protocol.asking import BUSY, HIGHEST, ONE, TWO, asking, pirate, sent


def test_the_first_request_opens_a_connection_that_others_share_and_each_answer_is_delivered_once() -> None:
    asker = pirate()
    assert asker.ask(ONE, b"one", 0) == [Connect("a"), Send(ONE, b"one")]
    assert asker.ask(TWO, b"two", 1) == [Send(TWO, b"two")]
    for taken in (ONE, PING_ID):
        with pytest.raises(AssertionError):
            asker.ask(taken, b"", 1)
    for request_id, reply in ((ONE, Pong()), (TWO, refusal(NotFound()))):
        assert asker.heard(request_id, reply, 1) == [Deliver(request_id, reply)]
        assert asker.heard(request_id, reply, 2) == []
    assert asker.deadline_ms() is None


def test_a_lost_message_alone_is_asked_again_under_its_id_after_its_time_then_twice_that() -> None:
    asker = asking(500, 900)
    assert asker.deadline_ms() == 500
    assert asker.tick(499) == []
    assert asker.tick(500) == [Send(ONE, b"one")]
    assert asker.tick(900) == [Send(TWO, b"two")]
    assert asker.tick(1_499) == []
    assert asker.tick(1_500) == [Send(ONE, b"one")]


def test_the_time_until_a_repeat_grows_to_a_bound_and_never_shrinks() -> None:
    asker = asking(RESEND_AFTER_LAST_MS, 2 * RESEND_AFTER_LAST_MS)
    times: dict[RequestId, list[int]] = {ONE: [], TWO: []}
    for now_ms in range(0, 6 * RESEND_AFTER_LAST_MS, HEARTBEAT_MS):
        for request_id in sent(asker.tick(now_ms)):
            if request_id != PING_ID:
                times[request_id].append(now_ms)
        asker.heard(PING_ID, Pong(), now_ms)
    assert times[ONE] == [at * RESEND_AFTER_LAST_MS for at in range(1, 6)]
    assert times[TWO] == [2 * RESEND_AFTER_LAST_MS, 4 * RESEND_AFTER_LAST_MS]


@pytest.mark.parametrize(
    ("random", "at_once"), [(0.5, []), (0.0, [Connect("b"), Send(ONE, b"one")])], ids=["with a pause", "without one"]
)
def test_silence_brings_pings_before_the_connection_is_given_up(random: float, at_once: list[Action]) -> None:
    asker = asking(60_000, random=random)
    for miss in range(1, MISSES_MAX + 1):
        assert asker.deadline_ms() == miss * HEARTBEAT_MS
        assert sent(asker.tick(asker.deadline_ms())) == [PING_ID]
    now_ms = asker.deadline_ms()
    assert asker.tick(now_ms) == [Disconnect(), *at_once]
    assert asker.endpoint == "b"
    assert not at_once or asker.deadline_ms() == now_ms + HEARTBEAT_MS


def test_while_the_broker_may_hold_every_request_it_is_pinged_only_afterwards_and_a_dead_one_noticed() -> None:
    wait_ms = 14_000
    later_ms = wait_ms + HEARTBEAT_MS
    asker = pirate()
    asker.ask(ONE, b"one", 0, wait_ms=wait_ms)
    assert sent(asker.tick(HEARTBEAT_MS)) == [PING_ID], "nothing was heard on this connection yet"
    asker.heard(PING_ID, Pong(), HEARTBEAT_MS)
    now_ms = HEARTBEAT_MS + later_ms
    assert not any(asker.tick(at_ms) for at_ms in range(2 * HEARTBEAT_MS, now_ms, HEARTBEAT_MS))
    assert asker.deadline_ms() == now_ms
    for _ in range(MISSES_MAX):
        assert sent(asker.tick(now_ms)) == [PING_ID]
        now_ms += HEARTBEAT_MS
    assert asker.tick(now_ms) == [Disconnect()]


def test_a_request_that_the_broker_answers_at_once_brings_the_ping_forward() -> None:
    asker = pirate()
    asker.ask(ONE, b"one", 0, wait_ms=30_000)
    asker.heard(PING_ID, Pong(), 0)
    assert asker.tick(HEARTBEAT_MS) == []
    asker.ask(TWO, b"two", 10_000)
    assert asker.deadline_ms() == 10_000 + HEARTBEAT_MS
    assert sent(asker.tick(10_000 + HEARTBEAT_MS)) == [PING_ID]


def test_a_ping_has_its_full_time_even_after_the_process_was_stopped() -> None:
    asker = asking(600_000)
    assert sent(asker.tick(60_000)) == [PING_ID]
    assert asker.deadline_ms() == 60_000 + HEARTBEAT_MS
    assert asker.tick(60_001) == []
    asker.heard(PING_ID, Pong(), 60_002)
    assert asker.reachable


def test_any_traffic_proves_life_and_an_idle_connection_is_not_blamed_for_its_silence() -> None:
    asker = asking(60_000)
    for now_ms in range(0, 50_000, HEARTBEAT_MS - 1):
        assert asker.tick(now_ms) == []
        asker.heard(TWO, Pong(), now_ms)
    asker.heard(ONE, Pong(), 50_000)
    asker.ask(TWO, b"two", 10**6)
    assert asker.deadline_ms() == 10**6 + HEARTBEAT_MS


def test_a_dropped_connection_is_opened_again_elsewhere_and_all_that_is_owed_is_asked_again_the_small_first() -> None:
    asker = pirate()
    asker.ask(ONE, b"a large one", 0)
    asker.ask(TWO, b"two", 0)
    assert asker.dropped(100) == [Disconnect()]
    assert asker.dropped(100) == []
    pause_ms = asker.deadline_ms() - 100
    assert 0 <= pause_ms <= BACKOFF_FIRST_MS
    assert asker.tick(100 + pause_ms - 1) == []
    assert asker.tick(100 + pause_ms) == [Connect("b"), Send(TWO, b"two"), Send(ONE, b"a large one")]


def test_the_endpoints_are_tried_in_turn_for_ever_and_a_request_has_its_full_time_at_each() -> None:
    asker = asking(1_000, random=0.0)
    for now_ms, endpoint in ((900, "b"), (1_800, "a"), (2_700, "b")):
        asker.dropped(now_ms)
        assert asker.tick(now_ms) == [Connect(endpoint), Send(ONE, b"one")]
        assert asker.deadline_ms() == now_ms + 1_000


def test_pauses_grow_to_a_bound_and_an_answer_makes_them_short_again() -> None:
    asker = asking(RESEND_AFTER_MS, random=HIGHEST)
    now_ms = 0
    pauses: list[int] = []
    for _ in range(12):
        asker.dropped(now_ms)
        pauses.append(asker.deadline_ms() - now_ms)
        now_ms = asker.deadline_ms()
        asker.tick(now_ms)
    assert pauses == sorted(pauses)
    assert pauses[0] == BACKOFF_FIRST_MS - 1
    assert pauses[-1] == BACKOFF_LAST_MS - 1
    asker.heard(PING_ID, Pong(), now_ms)
    asker.dropped(now_ms)
    assert asker.deadline_ms() - now_ms == BACKOFF_FIRST_MS - 1


def test_a_request_in_the_pause_waits_for_its_end_and_after_it_opens_at_once() -> None:
    asker = asking(RESEND_AFTER_MS)
    asker.dropped(1)
    assert asker.ask(TWO, b"two", 2) == []
    assert sent(asker.tick(asker.deadline_ms())) == [ONE, TWO]
    idle = asking(RESEND_AFTER_MS)
    idle.heard(ONE, Pong(), 1)
    idle.dropped(2)
    assert idle.ask(TWO, b"two", 10_000) == [Connect("b"), Send(TWO, b"two")]


def test_busy_is_asked_again_after_a_growing_pause_never_at_once_and_doubles_no_time() -> None:
    asker = asking(RESEND_AFTER_MS, random=HIGHEST)
    now_ms = 0
    pauses = [0]
    while pauses[-1] <= HEARTBEAT_MS - 1:  # then a Ping comes first
        assert asker.heard(ONE, BUSY, now_ms) == []
        pauses.append(asker.deadline_ms() - now_ms)
        now_ms = asker.deadline_ms()
        assert asker.tick(now_ms) == [Send(ONE, b"one")] or pauses[-1] > HEARTBEAT_MS - 1
    assert pauses == sorted(pauses)
    assert len(pauses) > 4
    asker = asking(500, random=0.0)
    for now_ms in range(10):
        asker.heard(ONE, BUSY, now_ms)
        assert asker.deadline_ms() == now_ms + 1
        assert asker.tick(now_ms + 1) == [Send(ONE, b"one")]
    assert asker.deadline_ms() == 10 + 500


def test_what_is_forgotten_is_not_asked_again() -> None:
    asker = asking(500, 900, random=0.0)
    asker.forget(ONE)
    asker.forget(ONE)
    assert asker.tick(500) == []
    assert asker.deadline_ms() == 900
    asker.dropped(501)
    assert sent(asker.tick(501)) == [TWO]
    asker.forget(TWO)
    assert asker.deadline_ms() is None


def test_it_tells_since_when_no_broker_was_heard() -> None:
    asker = pirate(random=0.0)
    assert asker.unheard_since_ms is None
    asker.ask(ONE, b"one", 7)
    asker.ask(TWO, b"two", 8)
    asker.dropped(9)
    assert asker.unheard_since_ms == 7
    asker.tick(10)
    assert asker.unheard_since_ms == 7
    asker.heard(TWO, Pong(), 11)
    assert asker.unheard_since_ms is None
    asker.dropped(12)
    assert asker.unheard_since_ms == 12
    asker.forget(ONE)
    assert asker.unheard_since_ms is None
    asker.ask(ONE, b"one", 20)
    assert asker.unheard_since_ms == 20
    asker.heard(ONE, Pong(), 21)
    asker.dropped(22)
    assert asker.unheard_since_ms is None, "an idle end is nobody's silence"
    asker.ask(ONE, b"one", 30)
    asker.tick(40, moved=True)
    assert asker.unheard_since_ms is None, "bytes move"
    asker.dropped(50)
    assert asker.unheard_since_ms == 50


def test_a_reply_of_an_ended_connection_says_nothing_of_the_next() -> None:
    asker = asking(RESEND_AFTER_MS, random=0.0)
    asker.dropped(1)
    asker.heard(TWO, Pong(), 2)
    asker.tick(3)
    assert not asker.reachable
    asker.heard(TWO, Pong(), 4)
    assert asker.reachable


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 10_000))
def test_a_pause_lies_between_nothing_and_its_bound(random: float, failures: int) -> None:
    pause_ms = full_jitter_ms(lambda: random, failures, BACKOFF_FIRST_MS, BACKOFF_LAST_MS)
    assert 0 <= pause_ms <= min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** min(failures, 20))


class Wire:
    """Holds a pirate to its laws: what it says is done to a socket that checks it."""

    def __init__(self, random: float) -> None:
        self.asker = pirate(random)
        self.open = False
        self.bodies: dict[RequestId, bytes] = {}
        self.on_wire: set[RequestId] = set()
        self.answered: list[RequestId] = []

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Connect():
                    assert not self.open, "one connection at a time"
                    self.open = True
                    self.on_wire = set()
                case Disconnect():
                    assert self.open
                    self.open = False
                case Send(request_id, body):
                    assert self.open, "nothing is sent without a connection"
                    if request_id != PING_ID:
                        assert body == self.bodies[request_id], "one id, one body"
                    self.on_wire.add(request_id)
                case Deliver(request_id, _):
                    self.answered.append(request_id)
                    del self.bodies[request_id]
        if self.open:
            assert set(self.bodies) <= self.on_wire, "on an open connection all that is owed was asked"


steps = st.lists(
    st.tuples(st.sampled_from(["ask", "answer", "busy", "drop", "due", "late", "forget"]), st.integers(0, 15_000)),
    max_size=80,
)


@settings(max_examples=150)
@given(steps, st.sampled_from([0.0, 0.3, HIGHEST]))
def test_no_request_is_ever_lost(script: list[tuple[str, int]], random: float) -> None:
    wire = Wire(random)
    asker = wire.asker
    now_ms = 0
    asked = forgotten = 0
    for what, number in script:
        owed = sorted(wire.bodies)
        chosen = owed[number % len(owed)] if owed else TWO
        match what:
            case "ask":
                asked += 1
                request_id = RequestId(asked.to_bytes(16, "big"))
                wire.bodies[request_id] = bytes(request_id)
                wire.do(asker.ask(request_id, bytes(request_id), now_ms, RESEND_AFTER_MS))
            case "answer" if wire.open:
                wire.do(asker.heard(chosen, Pong(), now_ms))
            case "busy" if wire.open:
                wire.do(asker.heard(chosen, Refused(code="busy", message=""), now_ms))
            case "drop":
                wire.do(asker.dropped(now_ms))
            case "forget" if owed:
                forgotten += 1
                asker.forget(chosen)
                del wire.bodies[chosen]
            case "due" if (deadline_ms := asker.deadline_ms()) is not None:
                now_ms = max(now_ms, deadline_ms)
                wire.do(asker.tick(now_ms))
            case _:
                now_ms += number
                wire.do(asker.tick(now_ms))
        assert (asker.deadline_ms() is None) == (not wire.bodies), "what is owed is always looked after"
    while wire.bodies:  # a broker that answers what reaches it ends all waiting
        if wire.open:
            wire.do(asker.heard(min(wire.bodies), Pong(), now_ms))
        else:
            now_ms = max(now_ms, asker.deadline_ms())
            wire.do(asker.tick(now_ms))
    assert len(set(wire.answered)) == len(wire.answered) == asked - forgotten


def test_a_broker_whose_store_is_away_is_left_for_the_next_and_the_pauses_grow_while_none_is_ready() -> None:
    asker = pirate(HIGHEST)
    now_ms = 0
    asker.ask(ONE, b"one", now_ms)
    for place in ("b", "a", "b", "a"):
        assert asker.heard(PING_ID, Pong(ready=False), now_ms) == [Disconnect()]
        opened_ms = asker.deadline_ms()
        assert opened_ms is not None
        pause_ms, now_ms = opened_ms - now_ms, opened_ms
        assert asker.tick(now_ms) == [Connect(place), Send(ONE, b"one")]
    assert pause_ms > 4 * BACKOFF_FIRST_MS
    assert asker.heard(PING_ID, Pong(), now_ms) == []
    assert asker.heard(PING_ID, Pong(ready=False), now_ms) == [Disconnect()]
    assert asker.deadline_ms() <= now_ms + BACKOFF_FIRST_MS


def test_the_only_broker_is_not_left_because_its_store_is_away() -> None:
    asker = pirate(HIGHEST, ("a",))
    asker.ask(ONE, b"one", 0)
    assert asker.heard(PING_ID, Pong(ready=False), 0) == []


def test_a_broker_whose_store_is_away_is_silent_until_it_answers() -> None:
    asker = pirate(HIGHEST, ("a",))
    asker.ask(ONE, b"one", 0)
    asker.heard(PING_ID, Pong(), 0)
    assert asker.unheard_since_ms is None
    for now_ms in (1_000, 3_000):
        asker.heard(PING_ID, Pong(ready=False), now_ms)
        asker.tick(now_ms + 1, moved=True)
        assert (asker.away, asker.unheard_since_ms) == (True, 1_000), "what it sends ends no silence"
    asker.heard(PING_ID, Pong(), 5_000)
    assert (asker.away, asker.unheard_since_ms) == (False, None)
