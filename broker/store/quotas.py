"""What one tenant may have: each tenant as much, and none at another's expense."""

from __future__ import annotations

from msgspec import Struct


class Quotas(Struct, frozen=True, kw_only=True):
    """The most of each; None: as much as there is.

    `waiting_max`: jobs that wait. `bytes_max`: of jobs and logs that are kept. `requests_per_s`: see `broker.rates`.
    `watched_max`: jobs whose live events are listened to, see `broker.watchers`.
    """

    waiting_max: int | None = None
    bytes_max: int | None = None
    requests_per_s: float | None = None
    watched_max: int | None = None
