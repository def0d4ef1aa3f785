"""Requests of an in-process worker, and of what floods or fills a broker; made with any revision of the product."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from airunner.protocol.events import AgentBody, ProcessEnd, ProcessStart, encode_bodies
from airunner.protocol.fields import DEFAULT_QUEUE
from airunner.protocol.job import Result
from airunner.protocol.names import REQUEST_ID_BYTES, SEED_BYTES, RequestId
from airunner.protocol.replies import JobLease
from airunner.protocol.requests import CompleteJob, DequeueJob, EventBatch, PublishJobEvents

VISIBILITY_MS: Final = 600_000
EVENTS: Final[list[AgentBody]] = [
    ProcessStart(timestamp_ms=1, pid=1, started_at=1),
    ProcessEnd(timestamp_ms=2, pid=1, exit_code=0, duration_ms=1),
]


def request_id(now_ms: int) -> RequestId:
    """Make a request id as `names.new_request_id` does, which older revisions do not have."""
    return RequestId(now_ms.to_bytes(6, "big") + os.urandom(REQUEST_ID_BYTES - 6))


def dequeue(slots: int, wait_ms: int) -> DequeueJob:
    """Make the request that leases jobs of the default queue."""
    return DequeueJob(
        agent="bench",
        queues=(DEFAULT_QUEUE,),
        slots=slots,
        visibility_ms=VISIBILITY_MS,
        wait_ms=wait_ms,
        token_seed=os.urandom(SEED_BYTES),
    )


def ended_at_once(leases: Sequence[JobLease]) -> PublishJobEvents:
    """Make the request that publishes all events of the leased attempts and completes them."""
    events = encode_bodies(EVENTS)
    return PublishJobEvents(
        batches=tuple(EventBatch(lease=lease.ref, first_index=0, count=len(EVENTS), events=events) for lease in leases),
        completions=tuple(
            CompleteJob(lease=lease.ref, event_count=len(EVENTS), result=Result(exit_code=0)) for lease in leases
        ),
    )
