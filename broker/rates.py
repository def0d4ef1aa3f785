"""How much each tenant may ask a second: token buckets. Pure.

A bucket holds `BURST_S` seconds' worth and fills steadily. A request is let in while there is anything in it, and
charged what it costs when that is known; so a costly one leaves a debt that the next ones wait for.
"""

from __future__ import annotations

from typing import Final

from airunner.protocol.errors import Quota

BURST_S: Final = 5.0
TENANTS_MAX: Final = 10_000  # the one that was full for longest is forgotten: it begins with a full bucket anyway


class Rates:
    """The buckets of all tenants; without a bound everything is let in."""

    def __init__(self, units_per_s: float | None = None) -> None:
        self._units_per_s = units_per_s
        self._buckets: dict[str, tuple[float, int]] = {}  # units at an instant (ms); the least recently used first

    def require(self, tenant: str, now_ms: int) -> None:
        """Raises `Quota`, with the time after which the same request may be let in."""
        if self._units_per_s is None:
            return
        units = self._units(tenant, now_ms, self._units_per_s)
        if units <= 0:
            raise Quota(
                f"the tenant asks for more than {self._units_per_s:g} requests a second",
                retry_ms=1 + int(-units / self._units_per_s * 1_000),
            )

    def charge(self, tenant: str, units: float, now_ms: int) -> None:
        """A request of this tenant's costs so much."""
        if self._units_per_s is None:
            return
        left = self._units(tenant, now_ms, self._units_per_s) - units
        self._buckets.pop(tenant, None)
        self._buckets[tenant] = (left, now_ms)
        while len(self._buckets) > TENANTS_MAX:
            del self._buckets[next(iter(self._buckets))]

    def _units(self, tenant: str, now_ms: int, units_per_s: float) -> float:
        full = units_per_s * BURST_S
        units, since_ms = self._buckets.get(tenant, (full, now_ms))
        return min(full, units + max(0, now_ms - since_ms) / 1_000 * units_per_s)
