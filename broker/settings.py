"""Settings of `airunner broker`, as its options were parsed."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from airunner.broker.janitor import RetentionPlan
from airunner.broker.store.quotas import Quotas


class Settings(Struct, frozen=True, kw_only=True):
    """Settings of a broker; None: the default, as `airunner broker --help` states it.

    `connections_per_s` limits the new connections of a machine; `tenants` are those whose queues /metrics names.
    """

    listen: str
    advertise: str | None
    http: str
    store_url: str | None
    blobs: str | None
    cache_bytes_max: int
    auth: bool
    public_key: Path | None
    retention: RetentionPlan
    quotas: Quotas
    reserve_bytes: int
    store_bytes_max: int | None
    connections_per_s: float
    connections_burst_s: float
    tenants: tuple[str, ...]
