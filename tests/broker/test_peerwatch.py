"""Whom a broker takes for dead: by its own beats and its own steady time alone, in a table and in random histories."""

from __future__ import annotations

from random import Random

import pytest

from airunner.broker.peerwatch import BEAT_S, COUNTED_S_MAX, DEAD_S, PeerWatch
from airunner.broker.store.rows import BrokerRow, BrokerSeen

ME = "m"


def row(
    broker: str, beat: int = 1, *, epoch: int = 1, ready_seq: int = 0, dead: bool = False, leases: int = 0
) -> BrokerRow:
    return BrokerRow(
        broker=broker,
        epoch=epoch,
        beat=beat,
        ready_seq=ready_seq,
        requests=f"tcp://{broker}:7070",
        events=f"tcp://{broker}:7071",
        version="1",
        dead=dead,
        leases=leases,
    )


@pytest.mark.parametrize(
    ("others", "is_first", "peers", "dead"),
    [
        ([], True, {}, []),
        ([row("a")], False, {"a": "tcp://a:7071"}, []),
        ([row("z")], True, {"z": "tcp://z:7071"}, []),
        ([row("a", dead=True), row("z")], True, {"z": "tcp://z:7071"}, []),
        ([row("a", 7, epoch=3, dead=True, leases=1)], True, {}, [BrokerSeen("a", 3, 7)]),
    ],
    ids=["alone", "a lower one", "a higher one", "a dead lower one", "one that has ended and left jobs"],
)
def test_what_the_rows_say_at_once(
    *, others: list[BrokerRow], is_first: bool, peers: dict[str, str], dead: list[BrokerSeen]
) -> None:
    concluded = PeerWatch(ME).conclude([*others, row(ME)], {}, 0.0)
    assert (concluded.is_first, concluded.peers, concluded.dead) == (is_first, peers, dead)
    assert concluded.left == frozenset()


@pytest.mark.parametrize(
    ("intervals_s", "is_dead"),
    [
        ([1.0] * 9, False),
        ([1.0] * 10, True),
        ([3_600.0], False),
        ([3_600.0] * 4, False),
        ([COUNTED_S_MAX] * 5, True),
        ([1.0] * 8 + [60.0], True),
        ([1.0] * 7 + [60.0], False),
    ],
    ids=[
        "too soon",
        "in time",
        "an outage",
        "many outages",
        "a slow store",
        "an outage then",
        "an outage a bit before",
    ],
)
def test_a_broker_whose_beat_stands_still_is_dead_after_time_in_which_own_beats_succeeded(
    *, intervals_s: list[float], is_dead: bool
) -> None:
    peers, now_s = PeerWatch(ME), 100.0
    concluded = peers.conclude([row("a", 5)], {}, now_s)
    for interval_s in intervals_s:
        assert concluded.dead == []
        now_s += interval_s
        concluded = peers.conclude([row("a", 5)], {}, now_s)
    assert concluded.dead == ([BrokerSeen("a", 1, 5)] if is_dead else [])
    assert peers.still_s("a", now_s) == sum(intervals_s)
    for revived in (row("a", 6), row("a", 6, epoch=2)):
        assert peers.conclude([revived], {}, now_s + 1).dead == []


def test_a_hint_is_unheard_whose_number_is_in_the_row_and_a_peer_that_left_may_have_sent_more() -> None:
    peers = PeerWatch(ME)
    assert peers.conclude([row("a", 1, ready_seq=5)], {}, 0.0).unheard == {"a": 5}, "nothing of it is known"
    assert peers.conclude([row("a", 2, ready_seq=8)], {"a": 5}, 1.0).unheard == {"a": 8}
    assert peers.conclude([row("a", 3, ready_seq=8)], {"a": 8}, 2.0).unheard == {}
    gone = peers.conclude([row("a", 3, dead=True)], {}, 3.0)
    assert (gone.unheard, gone.left) == ({}, {"a"})
    assert peers.conclude([row("a", 3, dead=True)], {}, 4.0).left == frozenset()


@pytest.mark.parametrize("seed", range(200))
def test_in_random_histories_only_who_was_still_for_long_is_dead_and_always_soon_enough(seed: int) -> None:
    random = Random(seed)
    peers, now_s = PeerWatch(ME), float(random.randrange(1_000))
    beats = dict.fromkeys("abc", 0)
    changed_s = dict.fromkeys("abc", now_s)
    own: dict[str, list[float]] = {broker: [] for broker in "abc"}  # own intervals since its beat was seen to change
    known = dict.fromkeys("abc", -1)
    asleep: set[str] = set()
    for _ in range(200):
        interval_s = random.choice((BEAT_S, BEAT_S, BEAT_S, 0.25, 1.75, 5.0, 90.0))
        now_s += interval_s
        for broker in beats:
            if random.random() < 0.04:
                asleep ^= {broker}
            if broker not in asleep:
                beats[broker] += random.randrange(1, 4)
                changed_s[broker] = now_s
            own[broker] = [*own[broker], interval_s] if known[broker] == beats[broker] else []
            known[broker] = beats[broker]
        concluded = peers.conclude([row(broker, beat) for broker, beat in beats.items()], {}, now_s)
        found = {seen.broker for seen in concluded.dead}
        for broker in beats:
            counted_s = sum(min(took_s, COUNTED_S_MAX) for took_s in own[broker])
            assert (broker in found) == (counted_s >= DEAD_S)
            if broker in found:
                assert now_s - changed_s[broker] >= DEAD_S
                assert len(own[broker]) >= DEAD_S / COUNTED_S_MAX
