"""Reason why a job waits, asked of the broker: `causes` decides, and this asks only for what it needs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from airunner.client.cli.causes import OF_AGENTS, Cause, Seen, Why, ahead_of, why_waiting
from airunner.protocol.errors import BadRequest
from airunner.protocol.job import Job, JobState
from airunner.transport.ports import SYSTEM

if TYPE_CHECKING:
    from airunner.client.client import Client

ENDED_MAX: Final = 20  # jobs of a queue from which it is estimated when a slot is free
COUNTED_MAX: Final = 500  # jobs of a queue that are listed to count those ahead of one: five pages


async def why_it_waits(client: Client, job: Job) -> Why | None:
    """Ask the broker why a job waits; None: it does not wait. Raises the errors of `Client`."""
    if job.state is not JobState.SCHEDULED:
        return None
    queue = await client.queue(job.spec.queue)
    seen = Seen(now_ms=SYSTEM.wall_ms(), queue=queue)
    if why_waiting(job, seen).cause not in OF_AGENTS:
        return why_waiting(job, seen)
    seen = replace(seen, agents=[agent async for agent in client.agents()])
    cause = why_waiting(job, seen).cause
    ready = 0 if queue is None else queue.waiting - queue.delayed
    if cause in (Cause.TURN, Cause.SLOTS_BUSY) and ready <= COUNTED_MAX:
        waiting = client.list(queue=job.spec.queue, state=JobState.SCHEDULED)
        seen = replace(seen, ahead=ahead_of(job, [other async for other in waiting]))
    if cause is Cause.SLOTS_BUSY:
        running = await client.list_page(state=JobState.RUNNING, page_size=100)
        ended = await client.list_page(queue=job.spec.queue, state=JobState.COMPLETED, page_size=ENDED_MAX)
        seen = replace(seen, running=running.jobs, ended=ended.jobs)
    if cause in OF_AGENTS:
        with suppress(BadRequest):  # an older broker: it is the only one
            seen = replace(seen, other_brokers=len([b for b in await client.brokers() if not b.dead]) > 1)
    return why_waiting(job, seen)
