"""Admission: authenticates, authorises and charges each request, before and after it is decoded.

A key that was removed from the allow-list is refused at its next request, also on open connections. The roles of a
machine's key (`agent`, `client`), and the tenant and queues that it may be bound to, limit every token that is used on
that machine: carried to another machine, a token grants no more than the key of that machine allows.

Queues: the queues that a request names are checked here. A request that names a job, or a list, carries the sender's
queues to the Store (`TenantRequest.queues`), which replies as if jobs in other queues did not exist, as for those of
other tenants. Requests about an attempt need no such check: the task token proves that the agent could lease the job.

A body that is too long for a Ping is rate-limited before it is decoded: by the machine's bucket if its token has to be
verified, then by the tenant's bucket that its first bytes point to. If the decoded request turns out to be for the
tenant's other bucket, that bucket has to admit it too, so that misleading first bytes gain nothing. See `rates`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from airunner.broker.prices import VERIFYING_UNITS, price_of_decoding
from airunner.broker.rates import Bucket, Purpose, Rates
from airunner.broker.requests import KINDS, Kind, decode, kind_of
from airunner.certs.allowlist import AllowListUnreadable, Entry, PeerRole
from airunner.certs.authority import Authority
from airunner.certs.principal import ANONYMOUS, Principal, Role, narrowed
from airunner.protocol.bounds import VALUES_MAX
from airunner.protocol.errors import BadRequest, Busy, Forbidden, Unauthenticated, Unsupported
from airunner.protocol.frames import RequestFrames, unpack_request
from airunner.protocol.message import Message
from airunner.protocol.requests import Ping, PublishJobEvents, Request, StoreRequest
from airunner.protocol.revisions import upgraded

Machines = Callable[[bytes], Entry | None]
"""Allow-list: finds the present entry of a key (in Z85); None: not listed. Raises `AllowListUnreadable`."""

UNATTRIBUTED_PER_S: Final = 900.0  # units a second of one machine: 225 tokens to verify, a tenth of the broker's work
PING_BYTES_MAX: Final = 64  # a body of at most this size is decoded before its token is verified: it may be a Ping

REVOKED: Final = "this machine's key has been taken off the broker's allow-list"

_HEAD_BYTES: Final = 32  # bytes at a body's start in which the kind of the request is searched for


class Admitted(Struct, frozen=True):
    """Admitted request; a Ping has no `principal`, because its token is not verified."""

    frames: RequestFrames
    request: Ping | StoreRequest
    principal: Principal = ANONYMOUS


def any_machine(_: bytes) -> Entry:
    """Admit every key: for a broker without an allow-list."""
    return Entry("any machine", frozenset(PeerRole))


class Admission:
    """Admission of requests; the Gateway calls `admit` for each message."""

    def __init__(self, authority: Authority, machines: Machines, rates: Rates, unattributed: Rates) -> None:
        self._authority = authority
        self._machines = machines
        self._rates = rates
        self._unattributed = unattributed
        self._entries: dict[str, Entry | None] = {}  # looked up since the Gateway last called `forget_entries`

    def forget_entries(self) -> None:
        """Forget cached entries: the next requests see the allow-list as it is now. Call it at the end of each pass."""
        self._entries.clear()

    def listed(self, key: str, request: StoreRequest) -> bool:
        """Check that the key is still listed, for the queues of its request. False also if the list cannot be read."""
        try:
            entry = self._entry(key)
        except AllowListUnreadable:
            return False
        return entry is not None and (entry.queues is None or entry.queues.issuperset(_queues_named(request)))

    def admit(self, frames: Sequence[bytes], key: str, now_ms: int) -> Admitted:
        """Admit a message from the machine with this key: charge, decode and authorise it.

        Raises `PeerError`: `Unsupported` or `BadRequest` for an invalid message; `Unauthenticated`, `Forbidden`;
        `Quota`: the tenant or the machine is over its rate limit; `Busy`: the allow-list cannot be read now.
        """
        try:
            unpacked = unpack_request(frames)
            entry = self._machine(key)
            short = _decoded_if_short(unpacked.body)
        except (BadRequest, Unsupported, Unauthenticated):
            self._charge_machine(key, now_ms)
            raise
        if isinstance(short, Ping):
            self._charge_machine(key, now_ms)
            return Admitted(unpacked, short)
        principal = self._principal(entry, key, unpacked.token, now_ms)
        guessed = self._guess_bucket(entry, principal, unpacked.body, now_ms)
        request = self._decode(guessed, unpacked, short, now_ms)
        kind = kind_of(request)
        self._authorise(entry, principal, request, kind)
        if kind.purpose is not guessed.purpose:
            self._rates.require(Bucket(principal.tenant, kind.purpose), now_ms)
        return Admitted(unpacked, request, principal)

    def charge(self, tenant: str, request: StoreRequest, units: int, now_ms: int) -> None:
        """Charge a request its measured cost."""
        self._rates.charge(Bucket(tenant, kind_of(request).purpose), units, now_ms)

    def _machine(self, key: str) -> Entry:
        """Look up the allow-list entry of this key.

        Raises `Unauthenticated`: it is not listed; `Busy`: the allow-list cannot be read now.
        """
        try:
            entry = self._entry(key)
        except AllowListUnreadable as error:
            raise Busy("the broker cannot read its allow-list; its log says why") from error
        if entry is None:
            raise Unauthenticated(REVOKED)
        return entry

    def _charge_machine(self, key: str, now_ms: int, units: float = 1) -> None:
        """Charge the machine for work that belongs to no tenant. Raises `Quota`: its bucket is empty."""
        bucket = Bucket(key, Purpose.MACHINE)
        self._unattributed.require(bucket, now_ms)
        self._unattributed.charge(bucket, units, now_ms)

    def _principal(self, entry: Entry, key: str, token: bytes, now_ms: int) -> Principal:
        """Authenticate the sender, and limit its tenant and queues to those of the machine's entry.

        Raises `Unauthenticated`, `Forbidden`; `Quota`: the machine sends too many tokens that have to be verified.
        """
        principal = self._authority.known(token, now_ms / 1_000)
        if principal is None:
            self._charge_machine(key, now_ms, VERIFYING_UNITS)
            principal = self._authority.verify(token, now_ms / 1_000)
        if principal is ANONYMOUS and entry.tenant is not None:
            principal = replace(principal, tenant=entry.tenant)
        if entry.queues is not None:
            principal = replace(principal, queues=narrowed(principal.queues, entry.queues))
        if entry.tenant not in (None, principal.tenant):
            self._charge_machine(key, now_ms)
            raise Forbidden("the token's tenant is not the one that this machine's key is bound to")
        return principal

    def _guess_bucket(self, entry: Entry, principal: Principal, body: bytes, now_ms: int) -> Bucket:
        """Guess which of the tenant's buckets a request is for from its first bytes; require that it is not empty.

        Raises `Quota`: it is empty.
        """
        may_work = Role.WORK in principal.roles and PeerRole.AGENT in entry.roles
        purpose = Purpose.AGENT if may_work and _FROM_AGENTS.search(body, 0, _HEAD_BYTES) else Purpose.CLIENT
        if _ABOUT_BLOBS.search(body, 0, _HEAD_BYTES):
            purpose = Purpose.BLOBS
        bucket = Bucket(principal.tenant, purpose)
        self._rates.require(bucket, now_ms)
        return bucket

    def _decode(self, payer: Bucket, frames: RequestFrames, request: Request | None, now_ms: int) -> StoreRequest:
        """Decode a body, unless it is decoded already (`request`), and charge the decoding, also of an invalid body.

        Raises `BadRequest`.
        """
        body = frames.body
        values = min(VALUES_MAX, len(body))  # upper bound, charged for an invalid or a short body
        try:
            if request is None:
                request, values = decode(upgraded(body, frames.revision))
        finally:
            bulk = payer.purpose is Purpose.AGENT and _PUBLISHING.search(body, 0, _HEAD_BYTES) is not None
            price = price_of_decoding(len(body), values, bulk=bulk, blobs=payer.purpose is Purpose.BLOBS)
            self._rates.charge(payer, price, now_ms)
        if isinstance(request, Ping):
            raise BadRequest(f"a Ping has {PING_BYTES_MAX} bytes at most")
        return request

    @staticmethod
    def _authorise(entry: Entry, principal: Principal, request: StoreRequest, kind: Kind[Any]) -> None:
        """Authorise a request. Raises `Forbidden`: the token or the machine's key lacks the role or a queue."""
        principal.require(*kind.roles)
        if kind.senders.isdisjoint(entry.roles):
            needed = " or ".join(sorted(kind.senders))
            raise Forbidden(f"this machine's key is not listed with the role {needed}, which this request needs")
        scope = principal.queues
        if scope is not None and (outside := _queues_named(request) - scope):
            bound = ", ".join(sorted(scope)) or "none"
            outside_words = f"queue {min(outside)} is not open to this key and token"
            raise Forbidden(f"{outside_words}, which are bound to queues: {bound}")

    def _entry(self, key: str) -> Entry | None:
        if key not in self._entries:
            self._entries[key] = self._machines(key.encode("ascii"))
        return self._entries[key]


def _decoded_if_short(body: bytes) -> Request | None:
    """Decode a body that is short enough for a Ping; None: it is longer.

    Raises `BadRequest`.
    """
    if len(body) > PING_BYTES_MAX:
        return None
    return decode(body)[0]


def _queues_named(request: StoreRequest) -> frozenset[str]:
    """List the queues that a request names."""
    return frozenset(kind_of(request).queues(request))


def _pattern_of(*kinds: type[Message]) -> re.Pattern[bytes]:
    """Compile a pattern that finds the name of any of these requests in a body."""
    return re.compile(b"|".join(kind.__name__.encode() for kind in kinds))


_FROM_AGENTS: Final = _pattern_of(*(request for request, kind in KINDS.items() if kind.purpose is Purpose.AGENT))
_ABOUT_BLOBS: Final = _pattern_of(*(request for request, kind in KINDS.items() if kind.purpose is Purpose.BLOBS))
_PUBLISHING: Final = _pattern_of(PublishJobEvents)
