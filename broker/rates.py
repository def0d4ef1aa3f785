"""Rate limits: token buckets of units, some 100 µs of the broker's work each. Pure.

A bucket holds some seconds' worth (`burst_s`) and fills steadily. A request is let in while there is anything in it,
and charged what it costs when that is known; so a costly one leaves a debt that the next ones wait for, of `DEBT_S` at
the most. One that is not let in costs one as well, up to a debt of `REFUSED_DEBT_S`: whoever asks on and on waits
longer.

A tenant has two, one for its agents' work: whoever floods with submissions does not end the jobs that run. A machine
has one for what is no tenant's: Pings, what has not the form of a request, tokens that nobody has seen before.
"""

from __future__ import annotations

from enum import IntEnum, auto
from typing import Final, NamedTuple

from airunner.broker.prices import UNITS_A_REQUEST
from airunner.protocol.errors import Quota

BURST_S: Final = 1.0  # while it lasts its owner has as much of the broker as there is
DEBT_S: Final = 10.0  # no request costs more than a fraction of a second, but many may be under way at once
REFUSED_DEBT_S: Final = 1.0
BUCKETS_MAX: Final = 20_000  # the one that was not asked of for longest is forgotten: it begins full again


class Purpose(IntEnum):
    """What a bucket is for."""

    CLIENT = auto()
    AGENT = auto()
    MACHINE = auto()

    @property
    def payer(self) -> str:
        """Whose it is, in words."""
        return "machine" if self is Purpose.MACHINE else "tenant"


class Bucket(NamedTuple):
    """Whose it is (a tenant, or a machine's key), and what for."""

    owner: str
    purpose: Purpose


class Rates:
    """The buckets of all; without a bound everything is let in."""

    def __init__(self, units_per_s: float | None = None, burst_s: float = BURST_S) -> None:
        self._units_per_s = units_per_s
        self._burst_s = burst_s
        self._buckets: dict[Bucket, tuple[float, int]] = {}  # units at an instant (ms); the least recently used first

    def require(self, bucket: Bucket, now_ms: int) -> None:
        """Raises `Quota`, with the time after which the same request may be let in."""
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
        """A request costs so much."""
        if self._units_per_s is not None:
            left = self._units(bucket, now_ms, self._units_per_s) - units
            self._put(bucket, max(left, -DEBT_S * self._units_per_s), now_ms)

    def _units(self, bucket: Bucket, now_ms: int, units_per_s: float) -> float:
        full = units_per_s * self._burst_s
        units, since_ms = self._buckets.get(bucket, (full, now_ms))
        return min(full, units + max(0, now_ms - since_ms) / 1_000 * units_per_s)

    def _put(self, bucket: Bucket, units: float, now_ms: int) -> None:
        self._buckets.pop(bucket, None)
        self._buckets[bucket] = (units, now_ms)
        while len(self._buckets) > BUCKETS_MAX:
            del self._buckets[next(iter(self._buckets))]
