"""How much each tenant may ask a second: token buckets. Pure.

A bucket holds `BURST_S` seconds' worth and fills steadily. A request is let in while there is anything in it, and
charged what it costs when that is known; so a costly one leaves a debt that the next ones wait for. One that is not let
in costs one as well, up to a debt of `DEBT_S`: whoever asks on and on waits longer.

A tenant has two, one for its agents' work: whoever floods with submissions does not end the jobs that run.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from airunner.protocol.errors import Quota

BURST_S: Final = 5.0
DEBT_S: Final = 1.0
BUCKETS_MAX: Final = 20_000  # the one that was not asked of for longest is forgotten: it begins full again


class Bucket(NamedTuple):
    """Whose it is, and whether it is for what agents do."""

    tenant: str
    work: bool


class Rates:
    """The buckets of all tenants; without a bound everything is let in."""

    def __init__(self, units_per_s: float | None = None) -> None:
        self._units_per_s = units_per_s
        self._buckets: dict[Bucket, tuple[float, int]] = {}  # units at an instant (ms); the least recently used first

    def require(self, bucket: Bucket, now_ms: int) -> None:
        """Raises `Quota`, with the time after which the same request may be let in."""
        if self._units_per_s is None:
            return
        units = self._units(bucket, now_ms, self._units_per_s)
        if units <= 0:
            self._put(bucket, max(units - 1, -DEBT_S * self._units_per_s), now_ms)
            raise Quota(
                f"the tenant asks for more than {self._units_per_s:g} requests a second",
                retry_ms=1 + int(-units / self._units_per_s * 1_000),
            )

    def charge(self, bucket: Bucket, units: float, now_ms: int) -> None:
        """A request costs so much."""
        if self._units_per_s is not None:
            self._put(bucket, self._units(bucket, now_ms, self._units_per_s) - units, now_ms)

    def _units(self, bucket: Bucket, now_ms: int, units_per_s: float) -> float:
        full = units_per_s * BURST_S
        units, since_ms = self._buckets.get(bucket, (full, now_ms))
        return min(full, units + max(0, now_ms - since_ms) / 1_000 * units_per_s)

    def _put(self, bucket: Bucket, units: float, now_ms: int) -> None:
        self._buckets.pop(bucket, None)
        self._buckets[bucket] = (units, now_ms)
        while len(self._buckets) > BUCKETS_MAX:
            del self._buckets[next(iter(self._buckets))]
