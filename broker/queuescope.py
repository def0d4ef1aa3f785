"""Queue scopes: which queues a bound key or token may submit to, lease from and read.

A request that names queues is judged here, at the door. One that names a job, or lists, carries its scope to the store
(`Ask.queues`), which answers as if the jobs of other queues were not there, as it does for other tenants.
Requests about an attempt need no scope: its task token proves that it was leased by somebody who may.
"""

from __future__ import annotations

from airunner.certs.principal import QueueScope
from airunner.protocol.errors import Forbidden
from airunner.protocol.messages import (
    DequeueJob,
    EnqueueJob,
    ListJobs,
    ListSecrets,
    RemoveSecret,
    SetSecret,
    StoreRequest,
    UpdateQueue,
)


def named_queues(request: StoreRequest) -> frozenset[str]:
    """The queues that `request` names."""
    match request:
        case EnqueueJob(jobs=jobs):
            return frozenset(job.queue for job in jobs)
        case DequeueJob(queues=queues):
            return frozenset(queues)
        case UpdateQueue(queue=queue) | SetSecret(queue=queue) | RemoveSecret(queue=queue):
            return frozenset({queue})
        case ListJobs(queue=str(queue)) | ListSecrets(queue=str(queue)):
            return frozenset({queue})
        case _:
            return frozenset()


def require_queues(scope: QueueScope, request: StoreRequest) -> None:
    """Raises `Forbidden` where `request` names a queue outside of `scope`."""
    if scope is None:
        return
    if outside := named_queues(request) - scope:
        bound = ", ".join(sorted(scope)) or "none"
        raise Forbidden(f"queue {min(outside)} is not open to this key and token: they are bound to {bound}")
