"""Quotas: the limits of each tenant, the same for all, so that none uses up the share of another."""

from __future__ import annotations

from msgspec import Struct


class Quotas(Struct, frozen=True, kw_only=True):
    """Quotas of a tenant; None: no limit.

    `waiting_max`: waiting jobs. `bytes_max`: stored jobs and logs. `requests_per_s`: see `broker.rates`.
    `watched_max`: jobs whose live events it listens to, see `broker.watchers`.
    """

    waiting_max: int | None = None
    bytes_max: int | None = None
    requests_per_s: float | None = None
    watched_max: int | None = None
