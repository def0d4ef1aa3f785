"""Quotas of a tenant: what it may still submit, log and end."""

from __future__ import annotations

from typing import Final

from airunner.broker.lifecycle.world import World
from airunner.broker.store.quotas import Quotas
from airunner.protocol.errors import Quota

RUNNING_FACTOR: Final = 2  # what runs may write its log until twice as much is kept as what is new may add to
LAST_ROOM_BYTES: Final = 64 * 1_048_576  # beyond twice as much, for what ends something: a thousand ends and more


def require(world: World, tenant: str, jobs: int, quotas: Quotas) -> None:
    """Raises `Quota`, where the tenant may not have so many jobs more."""
    if quotas.waiting_max is not None:
        waiting = world.usage(tenant).waiting
        if waiting + jobs > quotas.waiting_max:
            raise Quota(f"{waiting} jobs of this tenant wait, and {quotas.waiting_max} are the most")
    if quotas.bytes_max is not None:
        taken = world.usage(tenant).size_bytes
        if taken >= quotas.bytes_max:
            raise Quota(
                f"this tenant's jobs and logs take {taken} bytes, and {quotas.bytes_max} are the most; "
                "finished ones are removed when they are old enough"
            )


def require_log(world: World, tenant: str, quotas: Quotas, *, last: bool) -> None:
    """Raises `Quota`, where nothing more may be written of what runs; the `last` of an attempt is still let through."""
    _require_bytes(world, tenant, quotas, LAST_ROOM_BYTES if last else 0)


def require_end(world: World, tenant: str, quotas: Quotas) -> None:
    """Raises `Quota`, where not even what makes an end of something may leave its few bytes."""
    _require_bytes(world, tenant, quotas, LAST_ROOM_BYTES)


def _require_bytes(world: World, tenant: str, quotas: Quotas, room_bytes: int) -> None:
    if quotas.bytes_max is None:
        return
    most = RUNNING_FACTOR * quotas.bytes_max + room_bytes
    taken = world.usage(tenant).size_bytes
    if taken >= most:
        raise Quota(f"this tenant's jobs and logs take {taken} bytes, and {most} are the most for what runs already")
