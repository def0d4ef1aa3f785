"""Quotas: the limits of a tenant, the same for all tenants, so that no tenant uses up what others need."""

from __future__ import annotations

from msgspec import Struct


class Quotas(Struct, frozen=True, kw_only=True):
    """Quotas of a tenant; None: no limit.

    `waiting_max`: waiting jobs. `bytes_max`: bytes of stored jobs and logs. `requests_per_s`: see `broker.prices`.
    `watched_max`: jobs whose live events the tenant listens to, see `broker.watchers`.
    """

    waiting_max: int | None = None
    bytes_max: int | None = None
    requests_per_s: float | None = None
    watched_max: int | None = None
