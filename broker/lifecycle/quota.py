"""Quotas of a tenant: checks whether it may submit more jobs, log more output, and change its queues."""

from __future__ import annotations

from typing import Final

from airunner.broker.lifecycle.world import World
from airunner.broker.store.quotas import Quotas
from airunner.protocol.errors import Quota

RUNNING_FACTOR: Final = 2  # multiple of `Quotas.bytes_max` (no new jobs) at which output of running jobs is refused
LAST_ROOM_BYTES: Final = 64 * 1_048_576  # beyond that: last events of a thousand attempts, and `require_record`


def require(world: World, tenant: str, jobs: int, quotas: Quotas) -> None:
    """Require room for this many new jobs. Raises `Quota`."""
    if quotas.waiting_max is not None:
        waiting = world.usage(tenant).waiting
        if waiting + jobs > quotas.waiting_max:
            raise Quota(
                f"this tenant has {waiting} waiting jobs, and its limit is {quotas.waiting_max}; agents make room as "
                "they begin jobs, and so does `airunner cancel --state scheduled`"
            )
    if quotas.bytes_max is not None:
        taken = world.usage(tenant).size_bytes
        if taken >= quotas.bytes_max:
            raise Quota(
                f"this tenant's jobs and logs take {taken} bytes, and its limit is {quotas.bytes_max}; "
                "jobs that have finished are removed when they are old enough"
            )


def require_log(world: World, tenant: str, quotas: Quotas, *, last: bool) -> None:
    """Require room for events of running jobs; there is more room for the `last` ones of an attempt. Raises `Quota`."""
    _require_bytes(world, tenant, quotas, LAST_ROOM_BYTES if last else 0)


def require_record(world: World, tenant: str, quotas: Quotas) -> None:
    """Require room for the record of a request that sets a queue's mode or removes a secret. Raises `Quota`."""
    _require_bytes(world, tenant, quotas, LAST_ROOM_BYTES)


def _require_bytes(world: World, tenant: str, quotas: Quotas, room_bytes: int) -> None:
    if quotas.bytes_max is None:
        return
    most = RUNNING_FACTOR * quotas.bytes_max + room_bytes
    taken = world.usage(tenant).size_bytes
    if taken >= most:
        raise Quota(f"this tenant's jobs and logs take {taken} bytes, and its limit for running jobs is {most}")
