"""Idempotency records: a repeated submission, or change of a queue or secret, only gets its first reply again."""

from __future__ import annotations

from functools import partial

from airunner.broker.lifecycle.commands import TenantRequest
from airunner.broker.lifecycle.world import World
from airunner.broker.store.rows import Keys, Record
from airunner.protocol.coding import canonical_hash
from airunner.protocol.errors import Conflict
from airunner.protocol.names import JobId
from airunner.protocol.requests import EnqueueJob, EnqueueJobWithStdin, RemoveSecret, RetryJob, SetSecret, UpdateQueue

Once = EnqueueJob | EnqueueJobWithStdin | RetryJob | UpdateQueue | SetSecret | RemoveSecret


def load_answer(keys: Keys, command: TenantRequest, request: Once) -> None:
    """Request a request's idempotency record, and its tenant's usage if there are quotas of bytes or jobs.

    Of copies of one request in a batch the first is decided, so the record is that of the first.
    """
    record = partial(_record, command, request, keys.now_ms)
    keys.records.setdefault((command.tenant, command.request_id), record)
    if command.quotas.bytes_max is not None or command.quotas.waiting_max is not None:
        keys.tenants.add(command.tenant)


def answered(world: World, command: TenantRequest, request: Once) -> tuple[JobId, ...] | None:
    """Look up the job ids in the first reply to this request; None: it has not been answered before.

    Raises `Conflict`: the request with this id had another body. A sender bound to queues is not told its jobs.
    """
    before = world.record(command.tenant, command.request_id)
    if before is None:
        return None
    if before.body_hash != canonical_hash(request):
        raise Conflict(_used_by(before) if command.queues is None and before.job_ids else None)
    return tuple(map(JobId, before.job_ids.split()))


def _used_by(before: Record) -> str:
    first, *more = before.job_ids.split()
    others = f" and {len(more)} more" if more else ""
    return f"the request id was used before with another body, for job {first}{others}: use another request id"


def note_answer(world: World, command: TenantRequest, request: Once) -> None:
    """Record that this request was answered, with the ids of its jobs, which are `command.minted`."""
    world.note(_record(command, request, world.now_ms))


def _record(command: TenantRequest, request: Once, now_ms: int) -> Record:
    return Record(
        tenant=command.tenant,
        request_id=command.request_id,
        body_hash=canonical_hash(request),
        answered_ms=now_ms,
        job_ids=" ".join([minted.job_id for minted in command.minted]),
    )
