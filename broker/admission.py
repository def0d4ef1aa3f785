"""Who may ask what, and who pays for it: the machine's key, then the token, then the tenant's rate.

A key that was taken off the allow-list is refused at its next request, on connections that stand. What a machine may
be (`agent`, `client`) bounds what any token can do there, and so does the tenant that its key may be bound to: a token
that is carried to another machine opens no more than that machine may.

Whatever comes is paid for: by the tenant whose token was verified, from the one of its buckets that the request seems
to be for, before it is decoded; and by the machine where there is no such token. A request that turns out to be for the
other bucket has to be let in there too, so that a lie about it gains nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from airunner.broker.lifecycle.commands import TenantRequest
from airunner.broker.prices import VERIFYING_UNITS, units_of, units_of_decoding, usual_cost
from airunner.broker.queuescope import named_queues, require_queues
from airunner.broker.rates import Bucket, For, Rates
from airunner.certs.allowlist import AllowListUnreadable, Entry, PeerRole
from airunner.certs.authority import Authority
from airunner.certs.principal import ANONYMOUS, Principal, Role, narrowed
from airunner.protocol.errors import Busy, Forbidden, Unauthenticated
from airunner.protocol.messages import (
    CancelJob,
    CompleteJob,
    DequeueJob,
    EnqueueJob,
    GetJob,
    ListAgents,
    ListJobs,
    ListQueues,
    ListSecrets,
    PublishJobEvents,
    ReleaseJob,
    RemoveSecret,
    ReplayJobEvents,
    RetryJob,
    SetSecret,
    StoreRequest,
    UpdateJob,
    UpdateQueue,
    WatchJob,
)

ROLES: Final = MappingProxyType(
    {
        EnqueueJob: Role.SUBMIT,
        DequeueJob: Role.WORK,
        UpdateJob: Role.WORK,
        PublishJobEvents: Role.WORK,
        CompleteJob: Role.WORK,
        ReleaseJob: Role.WORK,
        CancelJob: Role.SUBMIT,
        RetryJob: Role.SUBMIT,
        UpdateQueue: Role.ADMIN,
        SetSecret: Role.ADMIN,
        RemoveSecret: Role.ADMIN,
        ListQueues: Role.READ,
        ListAgents: Role.READ,
        ListJobs: Role.READ,
        ListSecrets: Role.READ,
        GetJob: Role.READ,
        ReplayJobEvents: Role.READ,
        WatchJob: Role.READ,
    }
)
"""What each request needs; Ping needs nothing."""

Machines = Callable[[bytes], Entry | None]
"""Whose a key is (its Z85) at this moment; None: it is not on the allow-list. Raises `AllowListUnreadable`."""

KNOCKS_PER_S: Final = 1_000.0  # of one machine: some 250 new tokens, a twentieth of what the broker can do

REVOKED: Final = "this machine's key has been taken off the broker's allow-list"

_WORK: Final = tuple(kind.__name__.encode() for kind, role in ROLES.items() if role is Role.WORK)
_PUBLISHING: Final = PublishJobEvents.__name__.encode()
_HEAD_BYTES: Final = 32  # where the kind of a request most often stands


def everybody(_: bytes) -> Entry:
    """Where no list is kept."""
    return Entry("anybody", frozenset(PeerRole))


class Admission:
    """Judges requests; Gateways ask it before they decode."""

    def __init__(self, authority: Authority, machines: Machines, rates: Rates, knocks: Rates) -> None:
        self._authority = authority
        self._machines = machines
        self._rates = rates
        self._knocks = knocks
        self._entries: dict[str, Entry | None] = {}

    def look_again(self) -> None:
        """Some time has passed: the allow-list may have changed."""
        self._entries.clear()

    def listed(self, key: str, request: StoreRequest) -> bool:
        """Whether the key may still be here, and in the queues it asked for. Where that cannot be told, it may not."""
        try:
            entry = self._entry(key)
        except AllowListUnreadable:
            return False
        return entry is not None and (entry.queues is None or named_queues(request) <= entry.queues)

    def machine(self, key: str) -> Entry:
        """Whose key this is.

        Raises `Unauthenticated`; `Busy`, when nobody can be judged now.
        """
        try:
            entry = self._entry(key)
        except AllowListUnreadable as error:
            raise Busy("the broker cannot read its allow-list; its operator is told why") from error
        if entry is None:
            raise Unauthenticated(REVOKED)
        return entry

    def knock(self, key: str, now_ms: int, units: float = 1) -> None:
        """The machine sends what is no tenant's.

        Raises `Quota`, where it has sent too much of that.
        """
        bucket = Bucket(key, For.KNOCKING)
        self._knocks.require(bucket, now_ms)
        self._knocks.charge(bucket, units, now_ms)

    def principal(self, entry: Entry, key: str, token: bytes, now_ms: int) -> Principal:
        """Who asks, from the machine that `entry` tells of.

        Raises `Unauthenticated`, `Forbidden`; `Quota`, where the machine brings too many tokens to be verified.
        """
        principal = self._authority.known(token, now_ms / 1_000)
        if principal is None:
            self.knock(key, now_ms, VERIFYING_UNITS)
            principal = self._authority.verify(token, now_ms / 1_000)
        if principal is ANONYMOUS and entry.tenant is not None:
            principal = replace(principal, tenant=entry.tenant)
        if entry.queues is not None:
            principal = replace(principal, queues=narrowed(principal.queues, entry.queues))
        if entry.tenant not in (None, principal.tenant):
            self.knock(key, now_ms)
            raise Forbidden("this machine's key is bound to another tenant than the token's")
        return principal

    def open(self, entry: Entry, principal: Principal, body: bytes, now_ms: int) -> For:
        """Let a request in to be decoded, and say for which purpose; only its beginning is looked at.

        Raises `Quota`, where the tenant asks too much.
        """
        works = Role.WORK in principal.roles and PeerRole.AGENT in entry.roles and _seems(body, *_WORK)
        purpose = For.WORKING if works else For.ASKING
        self._rates.require(Bucket(principal.tenant, purpose), now_ms)
        return purpose

    def decoded(self, principal: Principal, purpose: For, body: bytes, values: int, now_ms: int) -> None:
        """Charge what it took to decode a body of so many values."""
        events = purpose is For.WORKING and _seems(body, _PUBLISHING)
        units = units_of_decoding(len(body), values, events=events)
        self._rates.charge(Bucket(principal.tenant, purpose), units, now_ms)

    def require(self, entry: Entry, principal: Principal, purpose: For, request: StoreRequest, now_ms: int) -> None:
        """Judge a request that was opened for `purpose`, and charge what it asks for.

        Raises `Forbidden`; `Quota`, where it is for another and the tenant asks too much of that.
        """
        role = ROLES[type(request)]
        principal.require(role)
        needed = PeerRole.AGENT if role is Role.WORK else PeerRole.CLIENT
        if needed not in entry.roles:
            raise Forbidden(f"this machine's key is not listed as {needed}, and this needs it")
        require_queues(principal.queues, request)
        bucket = Bucket(principal.tenant, _purpose(request))
        if bucket.purpose is not purpose:
            self._rates.require(bucket, now_ms)
        self._rates.charge(bucket, units_of(request), now_ms)

    def charge(self, ask: TenantRequest, cost: int, now_ms: int) -> None:
        """Charge what a request has cost beyond what is usual for one that does as much; `cost` is in 100 µs."""
        more = cost - usual_cost(ask.request)
        if more > 0:
            self._rates.charge(Bucket(ask.tenant, _purpose(ask.request)), more, now_ms)

    def _entry(self, key: str) -> Entry | None:
        if key not in self._entries:
            self._entries[key] = self._machines(key.encode("ascii"))
        return self._entries[key]


def _purpose(request: StoreRequest) -> For:
    return For.WORKING if ROLES[type(request)] is Role.WORK else For.ASKING


def _seems(body: bytes, *kinds: bytes) -> bool:
    """Whether a request seems to be one of these."""
    head = body[:_HEAD_BYTES]
    return any(kind in head for kind in kinds)
