"""Who may ask what, and who pays for it: the machine's key, then the token, then the tenant's rate."""

from __future__ import annotations

import math

import msgpack
import pytest
from msgspec.structs import replace

from airunner.broker.admission import PING_BYTES_MAX, Admission, Admitted
from airunner.broker.prices import VALUES_A_UNIT, VERIFYING_UNITS
from airunner.broker.rates import BURST_S, DEBT_S, REFUSED_DEBT_S, Bucket, Purpose, Rates
from airunner.broker.requests import kind_of
from airunner.certs.allowlist import AllowListUnreadable, Entry, PeerRole
from airunner.certs.principal import ALL_ROLES, ANONYMOUS, Principal
from airunner.protocol.coding import encode
from airunner.protocol.errors import Busy, Forbidden, Quota, Unauthenticated
from airunner.protocol.frames import pack_request
from airunner.protocol.message import Message
from airunner.protocol.requests import ListJobs, Ping, RemoveSecret, StoreRequest
from tests.broker.stage import WALL_MS, dequeue, request_id
from tests.protocol.examples import REQUESTS

BOTH = frozenset(PeerRole)
PRINCIPAL = Principal("s", "acme", ALL_ROLES, math.inf)
RATE = 10.0
ASKS, WORKS, UNATTRIBUTED = (
    Bucket("acme", Purpose.CLIENT),
    Bucket("acme", Purpose.AGENT),
    Bucket("key", Purpose.MACHINE),
)


class FakeAuthority:
    """Takes every token but `bad` for `principal`'s; knows those in `seen`."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.seen: set[bytes] = {b"t"}
        self.verified = 0

    def known(self, token: bytes, now_s: float) -> Principal | None:
        assert now_s == WALL_MS / 1_000
        return self.principal if token in self.seen else None

    def verify(self, token: bytes, now_s: float) -> Principal:
        assert now_s == WALL_MS / 1_000
        self.verified += 1
        if token == b"bad":
            raise Unauthenticated
        self.seen.add(token)
        return self.principal


def admission(
    entry: Entry | None, principal: Principal = PRINCIPAL, rates: Rates | None = None, unattributed: Rates | None = None
) -> Admission:
    return Admission(FakeAuthority(principal), lambda _: entry, rates or Rates(), unattributed or Rates())


def admit(
    here: Admission, request: Message | bytes = REQUESTS["GetJob"], token: bytes = b"t", key: str = "key"
) -> Admitted:
    body = request if isinstance(request, bytes) else encode(request)
    return here.admit(pack_request(request_id(1), token, body), key, WALL_MS)


def empty(bucket: Bucket) -> Rates:
    """Where nothing is left of that one."""
    rates = Rates(RATE)
    rates.charge(bucket, RATE * BURST_S, WALL_MS)
    return rates


def retry_ms(rates: Rates, bucket: Bucket = ASKS, now_ms: int = WALL_MS) -> int:
    """When to come again: 0 where it is not refused."""
    try:
        rates.require(bucket, now_ms)
    except Quota as refused:
        return refused.retry_ms
    return 0


def is_empty(rates: Rates, bucket: Bucket, now_ms: int = WALL_MS) -> bool:
    return retry_ms(rates, bucket, now_ms) > 0


def test_a_key_that_was_taken_off_the_list_is_refused_from_the_next_look_on() -> None:
    listed: dict[bytes, Entry] = {b"key": Entry("build-7", BOTH)}
    here = Admission(FakeAuthority(PRINCIPAL), listed.get, Rates(), Rates())
    assert admit(here).principal == PRINCIPAL
    listed.clear()
    here.forget_entries()
    assert not here.listed("key", REQUESTS["DequeueJob"])
    with pytest.raises(Unauthenticated, match="allow-list"):
        admit(here)


def test_while_the_list_cannot_be_read_nobody_is_served_and_all_may_come_back() -> None:
    def unreadable(_: bytes) -> Entry:
        raise AllowListUnreadable("it is a folder")

    here = Admission(FakeAuthority(PRINCIPAL), unreadable, Rates(), Rates())
    assert not here.listed("key", REQUESTS["DequeueJob"])
    with pytest.raises(Busy):
        admit(here)


def test_a_key_that_was_bound_to_other_queues_meanwhile_is_given_no_job() -> None:
    here = admission(Entry("build-7", BOTH, None, frozenset({"default"})))
    assert [here.listed("key", dequeue(queue)) for queue in ("default", "deploy")] == [True, False]


@pytest.mark.parametrize(
    ("token", "key", "open_to"),
    [
        (None, None, None),
        (None, {"ci"}, {"ci"}),
        ({"ci"}, None, {"ci"}),
        ({"ci", "a"}, {"ci", "b"}, {"ci"}),
        ({"a"}, {"b"}, set()),
    ],
)
def test_the_queues_that_both_key_and_token_allow_are_open(
    token: set[str] | None, key: set[str] | None, open_to: set[str] | None
) -> None:
    entry = Entry("m", BOTH, None, None if key is None else frozenset(key))
    principal = replace(PRINCIPAL, queues=None if token is None else frozenset(token))
    assert admit(admission(entry, principal)).principal.queues == open_to


def test_a_request_that_names_another_queue_is_forbidden() -> None:
    here = admission(Entry("m", BOTH, None, frozenset({"ci", "b"})))
    for request in (ListJobs(), ListJobs(queue="ci"), dequeue("b", "ci")):
        assert admit(here, request).request == request
    for request in (ListJobs(queue="z"), dequeue("ci", "z"), RemoveSecret(queue="z", name="A")):
        with pytest.raises(Forbidden, match="z is not open to this key and token, which are bound to queues: b, ci"):
            admit(here, request)


@pytest.mark.parametrize("request_", [request for name, request in REQUESTS.items() if name != "Ping"])
def test_a_machine_is_what_it_is_listed_as(request_: StoreRequest) -> None:
    for role in PeerRole:
        here = admission(Entry("m", frozenset({role})))
        if role in kind_of(request_).senders:
            assert admit(here, request_).request == request_
        else:
            with pytest.raises(Forbidden, match="listed"):
                admit(here, request_)


@pytest.mark.parametrize("request_", [request for name, request in REQUESTS.items() if name != "Ping"])
def test_a_token_without_the_role_opens_nothing_and_uses_up_no_work(request_: StoreRequest) -> None:
    others = Principal("s", "acme", ALL_ROLES - set(kind_of(request_).roles), math.inf)
    rates = Rates(1.0)
    with pytest.raises(Forbidden, match="role"):
        admit(admission(Entry("m", BOTH), others, rates), request_)
    assert is_empty(rates, ASKS._replace(purpose=Purpose.BLOBS) if kind_of(request_).blobs else ASKS)
    assert not is_empty(rates, WORKS)


def test_a_key_that_is_bound_to_a_tenant_presents_no_other_tenants_token_and_without_tokens_is_its_tenants() -> None:
    bound, free, other = Entry("m", BOTH, tenant="acme"), Entry("m", BOTH), Entry("m", BOTH, tenant="other")
    assert admit(admission(bound)).principal == PRINCIPAL
    with pytest.raises(Forbidden, match="tenant"):
        admit(admission(other))
    assert admit(admission(bound, ANONYMOUS)).principal.tenant == "acme"
    assert admit(admission(free, ANONYMOUS)).principal is ANONYMOUS


def test_a_machine_that_brings_bad_tokens_soon_has_none_of_them_verified() -> None:
    entry = Entry("m", BOTH)
    authority = FakeAuthority(PRINCIPAL)
    here = Admission(authority, lambda _: entry, Rates(), Rates(RATE))
    verified_max = int(RATE * BURST_S / VERIFYING_UNITS) + 1
    for number in range(2 * verified_max):
        with pytest.raises(Unauthenticated if number < verified_max else Quota):
            admit(here, token=b"bad")
    assert authority.verified == verified_max
    with pytest.raises(Quota, match="this machine sends more"):
        admit(here, token=b"new")
    assert admit(here).principal == PRINCIPAL, "whom the broker knows is served on"
    assert admit(here, token=b"new", key="other").principal == PRINCIPAL, "and so is every other machine"


def test_what_is_no_tenants_is_bounded_for_each_machine_also_another_tenants_token() -> None:
    rates = Rates(RATE)
    here = admission(Entry("m", BOTH, tenant="other"), rates=rates, unattributed=empty(UNATTRIBUTED))
    for request in (Ping(), REQUESTS["GetJob"]):
        with pytest.raises(Quota):
            admit(here, request)
    assert not is_empty(rates, ASKS)
    assert admit(here, Ping(), key="another").request == Ping()


def test_who_asks_too_much_is_told_for_how_long_and_others_are_not() -> None:
    rates = Rates(RATE)
    rates.charge(ASKS, RATE * BURST_S - 1, WALL_MS)
    rates.require(ASKS, WALL_MS)
    rates.charge(ASKS, RATE + 1, WALL_MS)
    assert retry_ms(rates) == 1 + 1_000
    assert not is_empty(rates, Bucket("other", Purpose.CLIENT))
    assert not is_empty(rates, WORKS)
    assert is_empty(rates, ASKS, WALL_MS + 900)
    assert not is_empty(rates, ASKS, WALL_MS + 2_002)


def test_whoever_asks_on_and_on_waits_longer_and_not_for_ever() -> None:
    rates = empty(ASKS)
    waits = [retry_ms(rates) for _ in range(100)]
    assert waits == sorted(waits)
    assert waits[-1] == 1 + REFUSED_DEBT_S * 1_000
    assert not is_empty(rates, ASKS, WALL_MS + 2 * waits[-1])
    rates.charge(ASKS, 1_000_000, WALL_MS)
    assert [retry_ms(rates) for _ in range(3)] == [1 + DEBT_S * 1_000] * 3, (
        "a debt is bounded, and no refusal lessens it"
    )


def test_a_bucket_is_never_fuller_than_full_and_a_clock_set_back_empties_none() -> None:
    rates = Rates(RATE)
    rates.charge(ASKS, 1, WALL_MS)
    rates.charge(ASKS, RATE * BURST_S - 1, WALL_MS + 86_400_000)
    assert not is_empty(rates, ASKS)
    rates.charge(ASKS, 1, WALL_MS)
    assert is_empty(rates, ASKS)


@pytest.mark.parametrize(
    ("name", "more", "emptied"),
    [
        ("GetJob", bytes(100), None),
        ("EnqueueJob", bytes(1_000_000), ASKS),
        ("GetJob", [0] * 100 * VALUES_A_UNIT, ASKS),
        ("PublishJobEvents", bytes(1_000_000), None),
        ("UpdateJob", bytes(1_000_000), WORKS),
    ],
)
def test_what_it_takes_to_decode_a_request_is_paid_for_whatever_it_is(
    name: str, more: object, emptied: Bucket | None
) -> None:
    rates = Rates(100.0)
    admit(
        admission(Entry("m", BOTH), rates=rates),
        msgpack.packb({**msgpack.unpackb(encode(REQUESTS[name])), "more": more}),
    )
    assert [bucket for bucket in (ASKS, WORKS) if is_empty(rates, bucket)] == ([emptied] if emptied else [])


def test_a_request_that_is_not_what_it_seems_has_to_be_let_in_as_what_it_is() -> None:
    seeming_work = msgpack.packb({"x": "DequeueJob", "type": "ListJobs", "more": "x" * PING_BYTES_MAX})
    with pytest.raises(Quota):
        admit(admission(Entry("m", BOTH), rates=empty(ASKS)), seeming_work)
    work_behind = {"x": "x" * 40, **msgpack.unpackb(encode(REQUESTS["DequeueJob"]))}
    with pytest.raises(Quota):
        admit(admission(Entry("m", BOTH), rates=empty(WORKS)), msgpack.packb(work_behind))


def test_what_a_request_was_measured_to_cost_is_paid_for() -> None:
    for cost, emptied in ((int(RATE * BURST_S) - 1, False), (int(RATE * BURST_S), True)):
        rates = Rates(RATE)
        admission(Entry("m", BOTH), rates=rates).charge("acme", REQUESTS["DequeueJob"], cost, WALL_MS)
        assert is_empty(rates, WORKS) is emptied
        assert not is_empty(rates, ASKS)


def test_a_flood_of_submissions_stops_no_heartbeat() -> None:
    here = admission(Entry("m", BOTH), rates=empty(ASKS))
    assert admit(here, REQUESTS["UpdateJob"])
    with pytest.raises(Quota):
        admit(here, REQUESTS["EnqueueJob"])
