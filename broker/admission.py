"""Who may ask what: the machine's key, then the token, then the tenant's rate.

A key that was taken off the allow-list is refused at its next request, on connections that stand. What a machine may
be (`agent`, `client`) bounds what any token can do there, and so does the tenant that its key may be bound to: a token
that is carried to another machine opens no more than that machine may.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from airunner.broker.rates import Bucket, Rates
from airunner.certs.allowlist import AllowListUnreadable, Entry, PeerRole
from airunner.certs.principal import ANONYMOUS, Principal, Role
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

Authority = Callable[[bytes], Principal]
"""Who a token is; raises `Unauthenticated`."""

Machines = Callable[[bytes], Entry | None]
"""Whose a key is (its Z85) at this moment; None: it is not on the allow-list. Raises `AllowListUnreadable`."""

_BYTES_A_UNIT: Final = 4_096  # of a request that is decoded to the last value
_EVENT_BYTES_A_UNIT: Final = 65_536  # of events, which are looked at as a whole
_ROWS_A_UNIT: Final = 4
_UNITS_A_PAGE: Final = 8


REVOKED: Final = "this machine's key has been taken off the broker's allow-list"


_WORK: Final = tuple(kind.__name__.encode() for kind, role in ROLES.items() if role is Role.WORK)
_HEAD_BYTES: Final = 32  # where the kind of a request most often stands


def everybody(_: bytes) -> Entry:
    """Where no list is kept."""
    return Entry("anybody", frozenset(PeerRole))


class Admission:
    """Judges requests; Gateways ask it before they decode."""

    def __init__(self, authority: Authority, machines: Machines, rates: Rates) -> None:
        self._authority = authority
        self._machines = machines
        self._rates = rates
        self._entries: dict[str, Entry | None] = {}

    def look_again(self) -> None:
        """Some time has passed: the allow-list may have changed."""
        self._entries.clear()

    def listed(self, key: str) -> bool:
        """Whether the key may still be here. Where that cannot be told, it may not."""
        try:
            return self._entry(key) is not None
        except AllowListUnreadable:
            return False

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

    def principal(self, entry: Entry, token: bytes, body: bytes, now_ms: int) -> Principal:
        """Who asks, from the machine that `entry` tells of; of the request only its beginning is looked at.

        Raises `Unauthenticated`, `Forbidden`; `Quota`, where the tenant asks too much.
        """
        principal = self._authority(token)
        if principal is ANONYMOUS and entry.tenant is not None:
            principal = replace(principal, tenant=entry.tenant)
        if entry.tenant not in (None, principal.tenant):
            raise Forbidden("this machine's key is bound to another tenant than the token's")
        self._rates.require(Bucket(principal.tenant, _seems_work(body)), now_ms)
        return principal

    def require(self, entry: Entry, principal: Principal, request: StoreRequest, size_bytes: int, now_ms: int) -> None:
        """Note what a request costs, and judge it.

        Raises `Forbidden`.
        """
        role = ROLES[type(request)]
        self._rates.charge(Bucket(principal.tenant, role is Role.WORK), _units(request, size_bytes), now_ms)
        principal.require(role)
        needed = PeerRole.AGENT if role is Role.WORK else PeerRole.CLIENT
        if needed not in entry.roles:
            raise Forbidden(f"this machine's key is not listed as {needed}, and this needs it")

    def _entry(self, key: str) -> Entry | None:
        if key not in self._entries:
            self._entries[key] = self._machines(key.encode("ascii"))
        return self._entries[key]


def _units(request: StoreRequest, size_bytes: int) -> int:
    """What a request counts for, against the tenant's rate: roughly what it costs the broker."""
    match request:
        case EnqueueJob(jobs=jobs):
            return max(len(jobs), 1 + size_bytes // _BYTES_A_UNIT)
        case PublishJobEvents():
            return 1 + size_bytes // _EVENT_BYTES_A_UNIT
        case ListJobs(page_size=rows):
            return 1 + rows // _ROWS_A_UNIT
        case ListQueues() | ListAgents() | ListSecrets() | ReplayJobEvents():
            return _UNITS_A_PAGE
        case _:
            return 1 + size_bytes // _BYTES_A_UNIT


def _seems_work(body: bytes) -> bool:
    """Whether an agent seems to do its work. It is charged for what it is, so a lie about that gains nothing."""
    head = body[:_HEAD_BYTES]
    return any(kind in head for kind in _WORK)
