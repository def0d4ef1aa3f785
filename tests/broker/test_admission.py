"""Who may ask what: the machine's key, then the token, then the tenant's rate."""

from __future__ import annotations

import math

import pytest

from airunner.broker.admission import ROLES, Admission
from airunner.broker.rates import BURST_S, DEBT_S, Bucket, Rates
from airunner.certs.allowlist import AllowListUnreadable, Entry, PeerRole
from airunner.certs.principal import ALL_ROLES, ANONYMOUS, Principal, Role
from airunner.protocol.errors import Busy, Forbidden, Quota, Unauthenticated
from airunner.protocol.messages import encode
from tests.broker.stage import WALL_MS
from tests.protocol.examples import REQUESTS

BOTH = frozenset(PeerRole)
PRINCIPAL = Principal("s", "acme", ALL_ROLES, math.inf)
RATE = 10.0


def admission(entry: Entry | None, principal: Principal = PRINCIPAL, rates: Rates | None = None) -> Admission:
    return Admission(lambda _: principal, lambda _: entry, rates or Rates())


def test_a_key_that_was_taken_off_the_list_is_refused_from_the_next_look_on() -> None:
    listed: dict[bytes, Entry] = {b"key": Entry("build-7", BOTH)}
    here = Admission(lambda _: PRINCIPAL, listed.get, Rates())
    assert here.machine("key").name == "build-7"
    listed.clear()
    here.look_again()
    assert not here.listed("key")
    with pytest.raises(Unauthenticated, match="allow-list"):
        here.machine("key")


def test_while_the_list_cannot_be_read_nobody_is_served_and_all_may_come_back() -> None:
    def unreadable(_: bytes) -> Entry:
        raise AllowListUnreadable("it is a folder")

    here = Admission(lambda _: PRINCIPAL, unreadable, Rates())
    assert not here.listed("key")
    with pytest.raises(Busy):
        here.machine("key")


@pytest.mark.parametrize("name", [name for name in REQUESTS if name != "Ping"])
def test_a_machine_is_what_it_is_listed_as(name: str) -> None:
    request = REQUESTS[name]
    works = ROLES[type(request)] is Role.WORK
    for role in PeerRole:
        entry = Entry("m", frozenset({role}))
        here = admission(entry)
        if works is (role is PeerRole.AGENT):
            here.require(entry, PRINCIPAL, request, 1, WALL_MS)
        else:
            with pytest.raises(Forbidden, match="listed"):
                here.require(entry, PRINCIPAL, request, 1, WALL_MS)


@pytest.mark.parametrize("name", [name for name in REQUESTS if name != "Ping"])
def test_a_token_without_the_role_opens_nothing(name: str) -> None:
    request = REQUESTS[name]
    entry = Entry("m", BOTH)
    others = Principal("s", "acme", ALL_ROLES - {ROLES[type(request)]}, math.inf)
    with pytest.raises(Forbidden, match="role"):
        admission(entry).require(entry, others, request, 1, WALL_MS)


def test_a_key_that_is_bound_to_a_tenant_presents_no_other_tenants_token() -> None:
    bound = Entry("m", BOTH, tenant="acme")
    assert admission(bound).principal(bound, b"t", b"", WALL_MS) == PRINCIPAL
    other = Entry("m", BOTH, tenant="other")
    with pytest.raises(Forbidden, match="tenant"):
        admission(other).principal(other, b"t", b"", WALL_MS)


def test_without_tokens_a_bound_key_is_its_tenants() -> None:
    bound = Entry("m", BOTH, tenant="acme")
    assert admission(bound, ANONYMOUS).principal(bound, b"", b"", WALL_MS).tenant == "acme"
    free = Entry("m", BOTH)
    assert admission(free, ANONYMOUS).principal(free, b"", b"", WALL_MS) is ANONYMOUS


ASKS, WORKS = Bucket("acme", work=False), Bucket("acme", work=True)


def test_who_asks_too_much_is_told_for_how_long_and_others_are_not() -> None:
    rates = Rates(RATE)
    rates.charge(ASKS, RATE * BURST_S - 1, WALL_MS)
    rates.require(ASKS, WALL_MS)
    rates.charge(ASKS, RATE + 1, WALL_MS)
    with pytest.raises(Quota) as refused:
        rates.require(ASKS, WALL_MS)
    assert refused.value.retry_ms == 1 + 1_000
    rates.require(Bucket("other", work=False), WALL_MS)
    rates.require(WORKS, WALL_MS)
    with pytest.raises(Quota):
        rates.require(ASKS, WALL_MS + 900)
    rates.require(ASKS, WALL_MS + 2 * refused.value.retry_ms)


def test_whoever_asks_on_and_on_waits_longer_and_not_for_ever() -> None:
    rates = Rates(RATE)
    rates.charge(ASKS, RATE * BURST_S, WALL_MS)
    waits = []
    for _ in range(100):
        with pytest.raises(Quota) as refused:
            rates.require(ASKS, WALL_MS)
        waits.append(refused.value.retry_ms)
    assert waits == sorted(waits)
    assert waits[-1] == 1 + DEBT_S * 1_000
    rates.require(ASKS, WALL_MS + 2 * waits[-1])


def test_a_bucket_is_never_fuller_than_full_and_a_clock_set_back_empties_none() -> None:
    rates = Rates(RATE)
    rates.charge(ASKS, 1, WALL_MS)
    rates.charge(ASKS, RATE * BURST_S - 1, WALL_MS + 86_400_000)
    rates.require(ASKS, WALL_MS)
    rates.charge(ASKS, 1, WALL_MS)
    with pytest.raises(Quota):
        rates.require(ASKS, WALL_MS)


def test_a_request_counts_for_what_it_costs() -> None:
    entry = Entry("m", BOTH)
    lie = b"\x82\xa4type\xa9UpdateJob"
    for name, size_bytes, refused in (
        ("EnqueueJob", 2_097_152, ASKS),
        ("PublishJobEvents", 2_097_152, None),
        ("UpdateJob", 2_097_152, WORKS),
        ("GetJob", 100, None),
    ):
        rates = Rates(100.0)
        here = admission(entry, rates=rates)
        here.principal(entry, b"t", lie, WALL_MS)
        here.require(entry, PRINCIPAL, REQUESTS[name], size_bytes, WALL_MS)
        for bucket in (ASKS, WORKS):
            if bucket == refused:
                with pytest.raises(Quota):
                    rates.require(bucket, WALL_MS)
            else:
                rates.require(bucket, WALL_MS)


def test_a_flood_of_submissions_stops_no_heartbeat() -> None:
    entry = Entry("m", BOTH)
    rates = Rates(RATE)
    rates.charge(ASKS, 2 * RATE * BURST_S, WALL_MS)
    here = admission(entry, rates=rates)
    here.principal(entry, b"t", encode(REQUESTS["UpdateJob"]), WALL_MS)
    with pytest.raises(Quota):
        here.principal(entry, b"t", encode(REQUESTS["EnqueueJob"]), WALL_MS)
