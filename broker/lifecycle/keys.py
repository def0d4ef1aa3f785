"""Keys of a batch: the rows on which its commands are decided."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from airunner.broker.lifecycle.commands import Command, TenantRequest
from airunner.broker.lifecycle.idempotency import Once
from airunner.broker.store.contract import Keys, QueueKey
from airunner.protocol.job import JobState
from airunner.protocol.requests import (
    CancelJob,
    CompleteJob,
    DequeueJob,
    EnqueueJob,
    PublishJobEvents,
    ReleaseJob,
    RemoveSecret,
    RetryJob,
    SetSecret,
    UpdateJob,
    UpdateQueue,
)


def keys_of(commands: Iterable[Command]) -> Keys:
    """Collect the keys of rows that can be named before any is read."""
    keys = Keys()
    for command in commands:
        if isinstance(command, TenantRequest):
            _add(keys, command)
    return keys


def keys_of_retries(commands: Iterable[Command], queues: dict[str, tuple[str, str]]) -> Keys:
    """Collect the keys of RetryJobs that need their jobs' rows; `queues`: queue and needs of each job."""
    keys = Keys()
    for command in commands:
        if isinstance(command, TenantRequest) and isinstance(command.request, RetryJob):
            found = queues.get(command.request.job_id)
            if found is not None:
                queue, needs = found
                _add_queue(keys, command.tenant, queue, needing=bool(needs))
    return keys


def _add(keys: Keys, command: TenantRequest) -> None:
    tenant = command.tenant
    match command.request:
        case PublishJobEvents() as request:
            keys.jobs.update([(tenant, batch.lease.job_id) for batch in request.batches])
            for completion in request.completions:
                _add_completion(keys, tenant, completion)
            if command.quotas.bytes_max is not None:
                keys.tenants.add(tenant)
        case CompleteJob() as request:
            _add_completion(keys, tenant, request)
        case DequeueJob() as request:
            keys.grants.add((tenant, command.request_id))
            queues = [QueueKey(tenant, queue) for queue in request.queues]
            keys.queues.update(queues)
            keys.kinds.update(queues)
        case UpdateJob() as request:
            keys.jobs.update([(tenant, lease.job_id) for lease in request.leases])
        case ReleaseJob() as request:
            keys.jobs.add((tenant, request.lease.job_id))
            keys.specs.add((tenant, request.lease.job_id))  # for the next to lease it
        case CancelJob() as request:
            keys.jobs.add((tenant, request.job_id))
        case EnqueueJob() | RetryJob() | UpdateQueue() | SetSecret() | RemoveSecret() as request:
            keys.records.add((tenant, command.request_id))
            if command.quotas.bytes_max is not None or command.quotas.waiting_max is not None:
                keys.tenants.add(tenant)
            _add_once(keys, tenant, request)
        case _:
            raise AssertionError("what only reads is not decided")


def _add_once(keys: Keys, tenant: str, request: Once) -> None:
    """Add the keys of a request with an idempotency record."""
    match request:
        case EnqueueJob(jobs=jobs):
            keys.new_jobs += len(jobs)
            for job in jobs:
                _add_queue(keys, tenant, job.queue, needing=bool(job.require))
        case RetryJob(job_id=job_id):
            keys.new_jobs += 1
            keys.jobs.add((tenant, job_id))
            keys.specs.add((tenant, job_id))
        case UpdateQueue(queue=queue):
            _add_queue(keys, tenant, queue, needing=True)
        case SetSecret() | RemoveSecret():
            pass  # the boxes of a queue are looked up when they are asked for
        case _:
            assert_never(request)


def _add_completion(keys: Keys, tenant: str, completion: CompleteJob) -> None:
    keys.jobs.add((tenant, completion.lease.job_id))
    if completion.result.state is JobState.FAILED:
        keys.specs.add((tenant, completion.lease.job_id))  # its retry policy


def _add_queue(keys: Keys, tenant: str, queue: str, *, needing: bool) -> None:
    """Add a queue's mode; and the kinds of its jobs, where a job is added or each kind is looked at."""
    keys.queues.add(QueueKey(tenant, queue))
    if needing:
        keys.kinds.add(QueueKey(tenant, queue))
        keys.tenants.add(tenant)
