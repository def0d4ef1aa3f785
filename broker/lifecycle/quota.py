"""Quotas of a tenant: whether it may still submit, log and end jobs."""

from __future__ import annotations

from typing import Final

from airunner.broker.lifecycle.world import World
from airunner.broker.store.quotas import Quotas
from airunner.protocol.errors import Quota

RUNNING_FACTOR: Final = 2  # running jobs may write their logs up to twice the quota that bounds new jobs
LAST_ROOM_BYTES: Final = 64 * 1_048_576  # beyond that, for the ends of attempts: a thousand ends and more


def require(world: World, tenant: str, jobs: int, quotas: Quotas) -> None:
    """Require room for this many new jobs. Raises `Quota`."""
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
    """Require room for events of running jobs; the `last` ones of an attempt have more room. Raises `Quota`."""
    _require_bytes(world, tenant, quotas, LAST_ROOM_BYTES if last else 0)


def require_end(world: World, tenant: str, quotas: Quotas) -> None:
    """Require room for the few bytes that end a job or an attempt. Raises `Quota`."""
    _require_bytes(world, tenant, quotas, LAST_ROOM_BYTES)


def _require_bytes(world: World, tenant: str, quotas: Quotas, room_bytes: int) -> None:
    if quotas.bytes_max is None:
        return
    most = RUNNING_FACTOR * quotas.bytes_max + room_bytes
    taken = world.usage(tenant).size_bytes
    if taken >= most:
        raise Quota(f"this tenant's jobs and logs take {taken} bytes, and {most} are the most for what runs already")
