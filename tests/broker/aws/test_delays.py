"""A job that is delayed by three days starts once, and not before, whatever becomes of its tickets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Final

import anyio
import pytest

from airunner.broker.aws.tickets import SLOT_MS
from airunner.broker.store.rows import Changes, OutboxEntry
from airunner.broker.timekeeper import Timekeeper
from airunner.client.client import Client
from airunner.protocol.fields import JobSpec
from airunner.protocol.replies import JobLease
from tests.broker.aws.queues import MemoryQueue
from tests.broker.aws.stage import AwsStage
from tests.broker.stage import dequeue
from tests.conformance.driving import completion
from tests.conformance.memory import MemoryEngine

DAYS_S: Final = 3 * 86_400.0
REST_S: Final = 600.0


class Agent:
    """Asks for a job every `REST_S`, and waits for one all the time after `parks_s`; `started` says when it got any."""

    def __init__(self, client: Client, parks_s: float) -> None:
        self._client = client
        self._parks_s = parks_s
        self._seeds = count(1)
        self.leases: list[JobLease] = []
        self.started: list[float] = []

    async def run(self) -> None:
        while True:
            seed = next(self._seeds).to_bytes(32, "big")
            parks = anyio.current_time() >= self._parks_s
            reply = await self._client._ask(dequeue(wait_ms=30_000 if parks else 0, seed=seed))
            await anyio.sleep(0 if parks else REST_S)  # virtual
            for lease in reply.leases:
                self.leases.append(lease)
                self.started.append(anyio.current_time())
                await self._client._ask(completion(lease))


@asynccontextmanager
async def served(stage: AwsStage, parks_s: float = 0.0) -> AsyncIterator[tuple[Client, Agent]]:
    """A broker with an agent."""
    async with stage.opened() as client, anyio.create_task_group() as group:
        agent = Agent(client, parks_s)
        group.start_soon(agent.run)
        yield client, agent
        group.cancel_scope.cancel()


async def delayed(client: Client, delay_s: float) -> float:
    """Submit a job that is delayed for so long; return when it is due."""
    due_s = anyio.current_time() + delay_s
    now_ms = 1_700_000_000_000 + int(anyio.current_time() * 1_000)
    await client.submit(JobSpec(command="true", not_before_ms=now_ms + int(delay_s * 1_000)))
    return due_s


def lost(queue: MemoryQueue) -> None:
    queue.lose = lambda _message: True


def tripled(queue: MemoryQueue) -> None:
    queue.copies = 3


def late(queue: MemoryQueue) -> None:
    queue.late_s = 1_000.0


def early(queue: MemoryQueue) -> None:
    queue.late_s = -600.0


def sound(_queue: MemoryQueue) -> None:
    """Nothing happens to tickets."""


@pytest.mark.parametrize("happens", [sound, lost, tripled, late, early])
@pytest.mark.timeout(120)
async def test_a_job_delayed_by_three_days_starts_once_and_not_before(happens: Callable[[MemoryQueue], None]) -> None:
    stage = AwsStage()
    happens(stage.bells)
    async with served(stage, DAYS_S - REST_S) as (client, agent):
        due_s = await delayed(client, DAYS_S)
        await anyio.sleep(DAYS_S + 600)  # virtual
        (started_s,) = agent.started
        assert due_s <= started_s <= due_s + 1
        assert stage.bells.sent


@pytest.mark.timeout(120)
async def test_a_timer_mends_a_broker_that_has_missed_the_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_timekeeper: Timekeeper) -> None:
        async for _ in _timekeeper._inbox:
            pass

    monkeypatch.setattr(Timekeeper, "run", never)
    stage = AwsStage()
    async with served(stage, DAYS_S - REST_S) as (client, agent):
        due_s = await delayed(client, DAYS_S)
        await anyio.sleep(DAYS_S + 600)  # virtual
        (started_s,) = agent.started
        assert due_s <= started_s <= due_s + SLOT_MS / 1_000 + 1


class Announcing(MemoryEngine):
    """Keeps an outbox, as an engine that announces does."""

    announces = True

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[OutboxEntry] = []

    def save(self, changes: Changes) -> None:
        super().save(changes)
        jobs = {job.number: job for job in (*changes.added, *(job for _, job in changes.changed))}
        for number, sequence in changes.lifecycle:
            (segment,) = [
                each
                for each in changes.segments
                if each.number == number and each.first_sequence <= sequence < each.first_sequence + each.count
            ]
            if sequence == segment.first_sequence:
                job = jobs[number]
                self.kept.append(
                    OutboxEntry(
                        tenant=job.tenant,
                        job_id=job.job_id,
                        queue=job.queue,
                        first_sequence=sequence,
                        events=segment.events,
                    )
                )

    def outbox(self, limit: int) -> list[OutboxEntry]:
        return self.kept[:limit]

    def published(self, entries: Sequence[OutboxEntry]) -> None:
        self.kept = [entry for entry in self.kept if entry not in entries]


async def test_each_lifecycle_event_of_a_log_is_on_the_bus_with_its_sequence() -> None:
    stage = AwsStage(Announcing())
    async with served(stage) as (client, _):
        ended = await client.submit(JobSpec(command="true"))
        cancelled = await client.submit(JobSpec(command="true", queue="other"))
        await client.cancel(cancelled)
        await anyio.sleep(5)  # virtual
        published = {
            (detail["job_id"], detail["sequence"], detail["kind"]): detail["timestamp_ms"]
            for detail in (json.loads(entry.detail) for entry in stage.bus.accepted)
        }
        logs = {
            (event.job_id, event.sequence, event.kind): event.timestamp_ms
            for job in (ended, cancelled)
            async for event in client.replay(job)
        }
    assert published == logs
    assert {kind for _, _, kind in logs} == {"JOB_SCHEDULED", "JOB_LEASED", "JOB_CANCEL_REQUESTED", "JOB_FINISHED"}
    assert len(stage.bus.accepted) == len(logs), "each once, while nothing breaks"
