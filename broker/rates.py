"""Rate limits: token buckets of units, each some 100 µs of the broker's work. Pure.

A bucket holds some seconds' worth (`burst_s`) and fills steadily. A request is admitted while its bucket is not empty,
and charged its cost when that is known; so a costly request leaves a debt, of `DEBT_S` at most, that the next ones wait
for. A rejected request costs a unit too, up to a debt of `REFUSED_DEBT_S`: a sender that repeats at once waits longer.

A tenant has two buckets, one for its agents' work: a flood of submissions does not end the jobs that run. A machine has
one for what belongs to no tenant: Pings, messages that are no request, and tokens that have not been verified yet.
"""

from __future__ import annotations

from enum import IntEnum, auto
from typing import Final, NamedTuple

from airunner.broker.prices import UNITS_A_REQUEST
from airunner.protocol.errors import Quota

BURST_S: Final = 1.0  # while it lasts its owner may use all of the broker
DEBT_S: Final = 10.0  # no request costs more than a fraction of a second, but many may be under way at once
REFUSED_DEBT_S: Final = 1.0
BUCKETS_MAX: Final = 20_000  # the least recently used is forgotten: it begins full again


class Purpose(IntEnum):
    """Purpose of a bucket: which requests are charged to it."""

    CLIENT = auto()
    AGENT = auto()
    MACHINE = auto()  # of no tenant

    @property
    def payer(self) -> str:
        """Word for its owner."""
        return "machine" if self is Purpose.MACHINE else "tenant"


class Bucket(NamedTuple):
    """Bucket of an owner (a tenant, or a machine's key) for a purpose."""

    owner: str
    purpose: Purpose


class Rates:
    """Rate limits of all owners; without `units_per_s` everything is admitted."""

    def __init__(self, units_per_s: float | None = None, burst_s: float = BURST_S) -> None:
        self._units_per_s = units_per_s
        self._burst_s = burst_s
        self._buckets: dict[Bucket, tuple[float, int]] = {}  # units at an instant (ms); the least recently used first

    def require(self, bucket: Bucket, now_ms: int) -> None:
        """Require units in a bucket. Raises `Quota`, with the time after which the same request may be admitted."""
        if self._units_per_s is None:
            return
        units = self._units(bucket, now_ms, self._units_per_s)
        if units <= 0:
            self._put(bucket, max(units - 1, min(units, -REFUSED_DEBT_S * self._units_per_s)), now_ms)
            requests = f"{self._units_per_s / UNITS_A_REQUEST:g} requests a second"
            raise Quota(
                f"this {bucket.purpose.payer} asks for more than {requests}",
                retry_ms=1 + int(-units / self._units_per_s * 1_000),
            )

    def charge(self, bucket: Bucket, units: float, now_ms: int) -> None:
        """Charge a bucket `units`."""
        if self._units_per_s is not None:
            left = self._units(bucket, now_ms, self._units_per_s) - units
            self._put(bucket, max(left, -DEBT_S * self._units_per_s), now_ms)

    def take(self, bucket: Bucket, now_ms: int) -> bool:
        """Charge a bucket one unit; False where it has none."""
        try:
            self.require(bucket, now_ms)
        except Quota:
            return False
        self.charge(bucket, 1, now_ms)
        return True

    def _units(self, bucket: Bucket, now_ms: int, units_per_s: float) -> float:
        full = units_per_s * self._burst_s
        units, since_ms = self._buckets.get(bucket, (full, now_ms))
        return min(full, units + max(0, now_ms - since_ms) / 1_000 * units_per_s)

    def _put(self, bucket: Bucket, units: float, now_ms: int) -> None:
        self._buckets.pop(bucket, None)
        self._buckets[bucket] = (units, now_ms)
        while len(self._buckets) > BUCKETS_MAX:
            del self._buckets[next(iter(self._buckets))]
