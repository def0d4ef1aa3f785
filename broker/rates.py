"""Rate limits: token buckets of units: some 100 µs of work, connections (Gatekeeper) or subscriptions (relay). Pure.

A bucket fills steadily, up to the units of `burst_s` seconds. A request is admitted while its bucket is not empty, and
charged its cost once that is known. So a costly request leaves a debt, and the next requests are refused until it is
paid off. A refused request costs a unit too: a sender that repeats at once waits longer.

A tenant has three buckets: for its clients, for its agents, and for blobs. So a flood of submissions or of files
expires no leases. A machine has
one bucket, for messages that belong to no tenant: Pings, invalid messages, and tokens that have to be verified.
"""

from __future__ import annotations

from enum import IntEnum, auto
from typing import Final, NamedTuple

from msgspec import Struct

from airunner.broker.prices import UNITS_A_REQUEST
from airunner.protocol.errors import Quota

BURST_S: Final = 1.0  # seconds of the rate in a full bucket; while they last, its owner may use the whole broker
DEBT_S: Final = 10.0  # largest debt, in seconds of the rate: a request costs far less, but many may be under way
REFUSED_DEBT_S: Final = 1.0  # largest debt that refused requests add up to, in seconds of the rate
BUCKETS_MAX: Final = 20_000  # buckets in memory; the least recently used is forgotten, and is full when used again


class Purpose(IntEnum):
    """Purpose of a bucket: which requests are charged to it."""

    CLIENT = auto()
    AGENT = auto()
    BLOBS = auto()
    MACHINE = auto()  # messages that belong to no tenant

    @property
    def payer(self) -> str:
        """Word for the bucket's owner in messages."""
        return "machine" if self is Purpose.MACHINE else "tenant"


class Bucket(NamedTuple):
    """Bucket of an owner (a tenant, or a machine's public key) for a purpose."""

    owner: str
    purpose: Purpose


class _Level(Struct):
    """Level of a bucket: its `units` at an instant."""

    units: float
    since_ms: int


class Rates:
    """Rate limits of all owners: `units_per_s` for each bucket; None: everything is admitted."""

    def __init__(self, units_per_s: float | None = None, burst_s: float = BURST_S) -> None:
        self._units_per_s = units_per_s
        self._burst_s = burst_s
        self._levels: dict[Bucket, _Level] = {}  # least recently used first; a missing bucket is full

    def require(self, bucket: Bucket, now_ms: int) -> None:
        """Require a bucket that is not empty. Raises `Quota`, with the time after which a repeat may be admitted."""
        level = self._levels.get(bucket)
        if level is None or level.units > 0 or self._units_per_s is None:
            return
        units = self._fill(level, now_ms, self._units_per_s)
        if units <= 0:
            self._levels[bucket] = self._levels.pop(bucket)
            level.units = max(units - 1, min(units, -REFUSED_DEBT_S * self._units_per_s))
            requests = f"{self._units_per_s / UNITS_A_REQUEST:g} requests a second"
            raise Quota(
                f"this {bucket.purpose.payer} sends more than {requests}",
                retry_ms=1 + int(-units / self._units_per_s * 1_000),
            )

    def charge(self, bucket: Bucket, units: float, now_ms: int) -> None:
        """Charge a bucket `units`."""
        if self._units_per_s is None:
            return
        level = self._levels.pop(bucket, None)
        if level is None:
            level = _Level(self._units_per_s * self._burst_s, now_ms)
        self._levels[bucket] = level
        left = self._fill(level, now_ms, self._units_per_s) - units
        level.units = max(left, -DEBT_S * self._units_per_s)
        while len(self._levels) > BUCKETS_MAX:
            del self._levels[next(iter(self._levels))]

    def take(self, bucket: Bucket, now_ms: int) -> bool:
        """Charge a bucket one unit; False: it is empty."""
        try:
            self.require(bucket, now_ms)
        except Quota:
            return False
        self.charge(bucket, 1, now_ms)
        return True

    def _fill(self, level: _Level, now_ms: int, units_per_s: float) -> float:
        """Fill a bucket up to `now_ms`, and return its units. A clock that was set back fills none."""
        more = max(0, now_ms - level.since_ms) / 1_000 * units_per_s
        level.units = min(units_per_s * self._burst_s, level.units + more)
        level.since_ms = now_ms
        return level.units
