"""Steps of a batch: how much work an entry of the Ledger's inbox is for the store, before it is done. Pure."""

from __future__ import annotations

from typing import Final

from airunner.broker.inbox import Asked, Between
from airunner.broker.lifecycle.commands import Command, TenantRequest
from airunner.broker.parking import Parked, steps_of_queues
from airunner.protocol.messages import (
    DequeueJob,
    EnqueueJob,
    ListAgents,
    ListJobs,
    ListQueues,
    ListSecrets,
    PublishJobEvents,
    ReplayJobEvents,
    UpdateJob,
)

BATCH_MS_MAX: Final = 25  # for what is asked meanwhile waits so long for its turn, a ping too
STEP_US: Final = 50  # measured: a job's whole life is three steps, and takes the store 130 µs in a batch of 64
BATCH_STEPS_MAX: Final = BATCH_MS_MAX * 1_000 // STEP_US
STEPS_OF_A_PAGE: Final = 16
PAIRS_PER_STEP: Final = 4  # of metadata


def steps_of(entry: Asked | Parked | Between | Command) -> int:
    """The steps of an entry: a job, a lease, a batch of events or two rows of a list are each a step."""
    match entry:
        case Asked(ask=TenantRequest(request=EnqueueJob(jobs=jobs))):
            return len(jobs) + sum(len(job.metadata) for job in jobs) // PAIRS_PER_STEP
        case Asked(ask=TenantRequest(request=DequeueJob() as request)):
            return request.slots + steps_of_queues(request)
        case Asked(ask=TenantRequest(request=PublishJobEvents(batches=batches, completions=completions))):
            return len(batches) + len(completions)
        case Asked(ask=TenantRequest(request=UpdateJob(leases=leases))):
            return 1 + len(leases) // 4
        case Asked(ask=TenantRequest(request=ListJobs() as request)):
            return 1 + request.page_size // 2 + (BATCH_STEPS_MAX if looks_through_many(request) else 0)
        case Asked(ask=TenantRequest(request=ListQueues() | ListAgents() | ListSecrets() | ReplayJobEvents())):
            return STEPS_OF_A_PAGE
        case _:
            return 1


def looks_through_many(request: ListJobs) -> bool:
    """Whether a store may have to look at many jobs that are not on such a list: it asks for more than one thing."""
    by_place = request.queue is not None or request.state is not None
    return int(by_place) + int(request.owner is not None) + len(request.metadata) > 1
