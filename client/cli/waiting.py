"""Reason why a job waits, asked of the broker: `causes` decides, and this asks only for what it needs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec.structs import replace

from airunner.client.cli.causes import OF_AGENTS, Cause, Seen, Why, ahead_of, why_waiting
from airunner.protocol.errors import BadRequest
from airunner.protocol.job import Job, JobState, JobSummary
from airunner.protocol.replies import QueueMode, QueueSummary
from airunner.protocol.requests import PAGE_SIZE_MAX
from airunner.transport.ports import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airunner.client.batches import BatchIterator
    from airunner.client.client import Client

ENDED_MAX: Final = 20  # jobs of a queue from which it is estimated when a slot is free
COUNTED_MAX: Final = 500  # jobs that are listed to count those ahead of one: five pages
QUEUES_MAX: Final = 8  # queues of which a list looks for the reasons of its jobs
AGENTS_MAX: Final = 1_000  # agents up to which a list looks at them: ten pages

_T = TypeVar("_T")


async def why_it_waits(client: Client, job: Job) -> Why | None:
    """Ask the broker why a job waits; None: it does not wait. Raises the errors of `Client`."""
    if not job.state.waiting:
        return None
    if job.state is JobState.BLOCKED:
        from airunner.client.cli.dependencies import why_blocked

        return await why_blocked(client, job)
    queue = await client.queue(job.spec.queue)
    seen = Seen(now_ms=SYSTEM.wall_ms(), queue=queue)
    if why_waiting(job, seen).cause not in OF_AGENTS:
        return why_waiting(job, seen)
    seen = replace(seen, agents=[agent async for agent in client.agents()])
    cause = why_waiting(job, seen).cause
    ready = 0 if queue is None else queue.waiting - queue.delayed
    if cause in (Cause.TURN, Cause.SLOTS_BUSY) and ready <= COUNTED_MAX:
        waiting = client.list(queue=job.spec.queue, state=JobState.SCHEDULED, details=True)
        seen = replace(seen, ahead=ahead_of(job, [other async for other in waiting]))
    if cause is Cause.SLOTS_BUSY:
        running = (await client.list_page(state=JobState.RUNNING, page_size=PAGE_SIZE_MAX)).jobs
        seen = replace(seen, running=running)
        if seen.ahead is not None:  # one page of the jobs before it: those ahead, those that run, and some that ended
            size = min(PAGE_SIZE_MAX, len(seen.ahead) + len(running) + ENDED_MAX)
            before = await client.list_page(queue=job.spec.queue, before=job.id, page_size=size)
            ended = [other for other in before.jobs if other.state is JobState.COMPLETED]
            seen = replace(seen, ended=ended[:ENDED_MAX])
    if cause in OF_AGENTS:
        with suppress(BadRequest):  # an older broker: it is the only one
            seen = replace(seen, other_brokers=len([b for b in await client.brokers() if not b.dead]) > 1)
    return why_waiting(job, seen)


class ListedJob(JobSummary, frozen=True, kw_only=True, omit_defaults=True):
    """Job in a list, with the reason why it waits."""

    why: Why | None = None


class Reasons:
    """Reasons why the jobs of one list wait: a bounded number of requests, however many jobs there are.

    They are made when the first job waits. A reason that more would be needed for is left out.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._queues: dict[str, QueueSummary | None] | None = None
        self._agents: Seen | None = None  # None: there are more agents than are looked at
        self._waiting: dict[str, list[JobSummary]] = {}

    async def add(self, jobs: Sequence[JobSummary]) -> list[JobSummary]:
        """Return these jobs, of a list with details, with their reasons. Raises the errors of `Client`."""
        waiting = [job for job in jobs if job.state.waiting]
        if waiting and self._queues is None:
            await self._ask(waiting)
        now_ms = SYSTEM.wall_ms()
        return [self._with_reason(job, now_ms) if job.state.waiting else job for job in jobs]

    def _with_reason(self, job: JobSummary, now_ms: int) -> JobSummary:
        queues = self._queues or {}
        seen = Seen(now_ms=now_ms, queue=queues.get(job.queue))
        why = why_waiting(job, seen)
        known: Why | None = why
        if why.cause in OF_AGENTS:
            known = None
            if self._agents is not None and job.queue in queues:
                there = self._waiting.get(job.queue)
                ahead = None if there is None else ahead_of(job, there)
                known = why_waiting(job, replace(self._agents, now_ms=now_ms, queue=seen.queue, ahead=ahead))
        return ListedJob(**{name: getattr(job, name) for name in JobSummary.__struct_fields__}, why=known)

    async def _ask(self, waiting: Sequence[JobSummary]) -> None:
        """Ask for the queues of the first jobs that wait, for the agents, and for all jobs that wait there."""
        client, names = self._client, list(dict.fromkeys(job.queue for job in waiting))[:QUEUES_MAX]
        self._queues = {name: await client.queue(name) for name in names}
        agents = await first_of(client.agents(), AGENTS_MAX + 1)
        if len(agents) > AGENTS_MAX:
            return
        others = 0
        with suppress(BadRequest):  # an older broker: it is the only one
            others = len([broker for broker in await client.brokers() if not broker.dead])
        self._agents = Seen(now_ms=0, agents=agents, other_brokers=others > 1)
        room = COUNTED_MAX
        for name, queue in self._queues.items():
            count = 0 if queue is None else queue.waiting
            if 0 < count <= room and queue is not None and queue.mode is not QueueMode.PAUSED:
                jobs = client.list(queue=name, state=JobState.SCHEDULED, details=True)
                self._waiting[name] = await first_of(jobs, room)
                room -= count


async def first_of(items: BatchIterator[_T], most: int) -> list[_T]:
    """Take the first items."""
    taken: list[_T] = []
    async with items:
        while len(taken) < most and (batch := await items.next_batch()):
            taken += batch
    return taken[:most]
