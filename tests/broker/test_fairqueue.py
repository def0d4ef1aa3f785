"""The Ledger's inbox: a tenant waits behind itself, and its flood is its own."""

from __future__ import annotations

from collections import Counter

import pytest
from anyio import WouldBlock

from airunner.broker import fairqueue as module
from airunner.broker.fairqueue import LANE_REQUESTS_MAX, FairQueue
from airunner.broker.inbox import Pending
from airunner.broker.lifecycle.commands import Expire, TenantRequest
from airunner.broker.requests import kind_of
from airunner.protocol.requests import ListJobs
from tests.broker.stage import request_id

PRICE = kind_of(ListJobs()).price(ListJobs())


def asked(tenant: str, number: int, size_bytes: int = 1) -> Pending:
    command = TenantRequest(tenant=tenant, request_id=request_id(number), request=ListJobs())
    return Pending(b"peer", command, size_bytes=size_bytes, price=PRICE)


def queued(*waiting: tuple[str, int]) -> FairQueue:
    """In which a request of each of these waits: whose, and which."""
    turns = FairQueue()
    for tenant, number in waiting:
        turns.send_nowait(asked(tenant, number))
    return turns


def taken(turns: FairQueue) -> list[tuple[str, int]]:
    """All that is there, in order: whose, and which."""
    found = []
    while True:
        try:
            entry = turns.receive_nowait()
        except WouldBlock:
            return found
        found.append((entry.command.tenant, int.from_bytes(entry.command.request_id, "big")))


def test_each_tenant_has_its_turn_and_its_own_order() -> None:
    flood = [("flood", number) for number in range(4)]
    turns = queued(*flood, ("one", 10), ("two", 20), ("two", 21))
    assert taken(turns) == [flood[0], ("one", 10), ("two", 20), flood[1], ("two", 21), flood[2], flood[3]]
    turns = queued(*flood)
    turns.receive_nowait()
    turns.send_nowait(asked("one", 10))
    assert taken(turns) == [("one", 10), *flood[1:]], "who comes back has not lost its turn to a flood"


def test_tenants_are_served_as_much_work_as_each_other_and_not_as_many_requests() -> None:
    turns = queued(*((tenant, number) for number in range(40) for tenant in ("dear", "cheap")))
    served = Counter[str]()
    while served["cheap"] < 40:
        entry = turns.receive_nowait()
        served[entry.command.tenant] += 1
        turns.charge(entry.command.tenant, 9 * PRICE if entry.command.tenant == "dear" else 0)
    assert served["dear"] in (4, 5)


def test_what_was_less_work_than_its_price_is_counted_for_less() -> None:
    turns = queued(("one", 0), ("two", 0), ("one", 1), ("two", 1))
    turns.receive_nowait()
    turns.receive_nowait()
    turns.charge("two", -1)
    assert taken(turns) == [("two", 1), ("one", 1)]


def test_who_was_idle_has_saved_up_no_turns_and_is_owed_for_nothing_for_ever() -> None:
    turns = FairQueue()
    turns.charge("dear", 1_000)
    for order in (["busy", "busy", "dear", "dear"], ["dear", "busy", "dear", "busy"]):
        for tenant in ("dear", "dear", "busy", "busy"):
            turns.send_nowait(asked(tenant, 1))
        assert [tenant for tenant, _ in taken(turns)] == order


def test_tenants_that_have_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TENANTS_MAX", 10)
    turns = FairQueue()
    for number in range(100):
        turns.charge(f"tenant{number}", 1)
    assert len(turns._served) == 10


def test_a_full_lane_is_its_tenants_alone() -> None:
    turns = queued(*(("flood", number) for number in range(LANE_REQUESTS_MAX)))
    with pytest.raises(WouldBlock):
        turns.send_nowait(asked("flood", LANE_REQUESTS_MAX))
    turns.send_nowait(asked("one", 1))
    assert taken(turns)[:2] == [("flood", 0), ("one", 1)]
    turns.send_nowait(asked("flood", 1))


def test_a_lane_is_bounded_in_bytes_and_takes_one_request_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LANE_BYTES_MAX", 100)
    turns = FairQueue()
    turns.send_nowait(asked("big", 1, 1_000))
    with pytest.raises(WouldBlock):
        turns.send_nowait(asked("big", 2, 1))
    assert taken(turns) == [("big", 1)]
    turns.send_nowait(asked("big", 2, 60))
    turns.send_nowait(asked("big", 3, 40))
    with pytest.raises(WouldBlock):
        turns.send_nowait(asked("big", 4, 1))


def test_very_many_tenants_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUESTS_MAX", 3)
    turns = queued(*((f"tenant{number}", number) for number in range(3)))
    with pytest.raises(WouldBlock):
        turns.send_nowait(asked("one more", 4))
    turns.send_nowait(Expire())
    assert turns.receive_nowait() == Expire(), "what the broker has to do has room, and comes first"
    turns.receive_nowait()
    turns.send_nowait(asked("one more", 4))


async def test_whoever_receives_is_woken_once_for_what_has_arrived_together_and_at_once_for_the_brokers_own() -> None:
    turns = FairQueue()
    received: list[object] = []
    turns.wake()
    with turns.received_by(lambda: received.append(turns.receive_nowait())):
        turns.send_nowait(asked("one", 1))
        turns.send_nowait(asked("one", 2))
        assert received == []
        turns.wake()
        assert received == [asked("one", 1)]
        await turns.send(Expire())
        assert received[1:] == [Expire()]
    turns.wake()
    assert len(received) == 2
