"""Who waits for a job, in which order, and for how long."""

from __future__ import annotations

import pytest

from airunner.broker import parking as module
from airunner.broker.inbox import Pending
from airunner.broker.parking import TAG_SETS_MAX, Parking
from airunner.broker.store.rows import QueueKey
from airunner.protocol.requests import QUEUES_MAX
from tests.broker.stage import asked, dequeue

DEFAULT = QueueKey("default", "default")
OTHER = QueueKey("default", "other")
STEPS = 100  # more than any of these needs


def taken(parking: Parking, jobs: int = 1, queue: QueueKey = DEFAULT) -> list[Pending]:
    return [parked.pending for parked in parking.take({queue: jobs}, STEPS)]


def test_the_longest_waiting_comes_first_whatever_its_tags() -> None:
    parking = Parking()
    waiting = [asked(1, dequeue()), asked(2, dequeue(tags={"os": "linux"})), asked(3, dequeue()), asked(4, dequeue())]
    for pending, until_ms in zip(waiting, (300, 200, 100, 400), strict=True):
        parking.park(pending, until_ms)
    (first,) = parking.take({DEFAULT: 1}, STEPS)
    assert first.pending == waiting[0]
    parking.park(first.pending, 300, first.turn)  # tried in vain
    assert taken(parking, 2) == waiting[:2]
    assert taken(parking, 3) == waiting[2:]
    assert taken(parking) == []


def test_no_more_are_taken_than_the_jobs_fill_slots() -> None:
    parking = Parking()
    parking.park(asked(1, dequeue(slots=3)), 100)
    parking.park(asked(2, dequeue(slots=1)), 100)
    parking.park(asked(3, dequeue(slots=1)), 100)
    assert len(parking.take({DEFAULT: 4}, STEPS)) == 2
    assert len(parking) == 1


def test_who_is_taken_waits_on_none_of_its_queues_any_more() -> None:
    parking = Parking()
    parking.park(asked(1, dequeue("default", "other")), 100)
    assert parking.waits_on([DEFAULT, OTHER, QueueKey("default", "third")]) == {DEFAULT, OTHER}
    assert len(parking.take({OTHER: 1, DEFAULT: 1}, STEPS)) == 1
    assert parking.waits_on([DEFAULT, OTHER]) == set()


def test_long_waits_that_end_at_nearly_the_same_time_end_together() -> None:
    parking = Parking()
    waits = 1_000
    for number in range(waits):  # one each 15 ms, as 1,000 agents that are parked for 15 s each
        parking.park(asked(number, dequeue(wait_ms=15_000)), 15_000 + 15 * number)
    parking.park(asked(waits, dequeue(wait_ms=100)), 15_150)
    ended: list[int] = []
    while (at_ms := parking.next_end_ms()) is not None:
        assert parking.expired(at_ms - 1) == []
        ended += [parked.until_ms - at_ms for parked in parking.expired(at_ms)]
    assert ended.count(0) <= waits // 20, "so often the broker wakes"
    assert max(ended) == 300
    assert len(ended) == waits + 1


def test_a_repeat_takes_the_place_of_the_first_and_leaves_it_when_it_is_judged_again() -> None:
    parking = Parking()
    first, repeat = asked(1, dequeue(), peer=b"old"), asked(1, dequeue(), peer=b"new")
    parking.park(first, 100)
    parking.park(asked(2, dequeue()), 400)
    parking.park(repeat, 300)
    assert len(parking) == 2
    assert parking.expired(200) == [], "only its newest end counts"
    assert taken(parking) == [repeat]
    parking.park(first, 100)
    for leaving in (repeat, asked(2, dequeue()), asked(3, dequeue())):
        parking.discard(leaving)
    assert len(parking) == 0
    assert parking.expired(1_000) == []


def test_a_wait_ends_when_it_is_over_and_not_before() -> None:
    parking = Parking()
    assert parking.next_end_ms() is None
    parking.park(asked(1, dequeue()), 100)
    parking.park(asked(2, dequeue()), 200)
    assert parking.next_end_ms() == 100
    assert parking.expired(99) == []
    assert [parked.until_ms for parked in parking.expired(100)] == [100]
    assert [parked.until_ms for parked in parking.expired(500)] == [200]


def test_there_is_room_for_so_many_and_a_repeat_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACES_MAX", 2)
    parking = Parking()
    assert parking.park(asked(1, dequeue("a", "b")), 100)
    assert not parking.park(asked(2, dequeue()), 100)
    assert parking.park(asked(3, dequeue(), tenant="other"), 100)
    assert parking.park(asked(1, dequeue("a", "b")), 200)
    parking.discard(asked(1, dequeue("a", "b")))
    assert not parking.park(asked(4, dequeue("a", "b", "c")), 100)
    assert parking.park(asked(4, dequeue("a", "b")), 100)


def test_a_job_reaches_who_may_run_it_past_those_who_may_not() -> None:
    parking = Parking()
    plain, able = asked(1, dequeue()), asked(2, dequeue(tags={"os": "linux", "arch": "arm"}))
    parking.park(plain, 100)
    parking.park(able, 100)
    needing = DEFAULT._replace(needs="os=linux")
    assert parking.waits_on([needing, DEFAULT._replace(needs="os=mac")]) == {needing}
    assert taken(parking, queue=needing) == [able]
    assert taken(parking, queue=needing) == []
    assert taken(parking) == [plain]


def test_one_tenants_many_queues_leave_the_others_their_share() -> None:
    parking = Parking()
    broad = [f"q{number}" for number in range(QUEUES_MAX)]
    for number in range(9):
        parking.park(asked(number, dequeue(*broad), tenant="a"), 100)
        parking.park(asked(number, dequeue(*broad[:2]), tenant="b"), 100)
    taken = parking.take({QueueKey("a", "q0"): 9, QueueKey("b", "q0"): 9, QueueKey("c", "q0"): 9}, QUEUES_MAX // 4)
    assert [parked.pending.command.tenant for parked in taken] == [*"aabbbbbbbb"], "nobody of c waits"
    assert len(parking.take({QueueKey("a", "q0"): 9}, 1_000)) == 7, "the others wait on"


def test_a_tenants_agents_have_so_many_different_tags_and_no_more() -> None:
    """Each is held against what a job needs."""
    parking = Parking()
    for number in range(TAG_SETS_MAX):
        assert parking.park(asked(number, dequeue(tags={"n": f"{number}"})), 100)
    assert not parking.park(asked(1_000, dequeue(tags={"n": "more"})), 100)
    assert not parking.park(asked(1_000, dequeue("other", tags={"n": "more"})), 100)
    assert parking.park(asked(1_000, dequeue(tags={"n": "more"}), tenant="b"), 100)
    assert parking.park(asked(1_001, dequeue(tags={"n": "7"})), 100)
    parking.discard(asked(7, dequeue(tags={"n": "7"})))
    assert not parking.park(asked(1_000, dequeue(tags={"n": "more"})), 100), "another has the same"
    parking.discard(asked(8, dequeue(tags={"n": "8"})))
    assert parking.park(asked(1_000, dequeue(tags={"n": "more"})), 100)


def test_every_queue_with_what_its_agents_have_reaches_each_kind_of_them() -> None:
    parking = Parking()
    linux, both = {"os": "linux"}, {"os": "linux", "gpu": "1"}
    agents = [asked(number, dequeue("ci", "b", tags=tags)) for number, tags in enumerate(({}, linux, both))]
    for agent in agents:
        parking.park(agent, 1)
    keys = parking.queues()
    assert {key.queue for key in keys} == {"ci", "b"}
    assert sorted(key.needs for key in keys if key.queue == "b") == ["", "gpu=1\nos=linux", "os=linux"]
    assert {parked.pending.command.request_id for parked in parking.take(dict.fromkeys(keys, 1), 1_000)} == {
        agent.command.request_id for agent in agents
    }
