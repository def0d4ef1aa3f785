"""Time on AWS: a delay of days ends once and not before, a lease of hours is kept, whatever becomes of tickets."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

import anyio
import pytest

from airunner.broker import janitor
from airunner.broker.aws.tickets import SLOT_MS
from airunner.broker.timekeeper import Timekeeper
from airunner.client.client import Client
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState
from airunner.protocol.replies import Verdict
from airunner.protocol.requests import UpdateJob
from tests.broker.aws.queues import MemoryQueue
from tests.broker.aws.stage import REST_S, Agent, AwsStage, served
from tests.conformance.driving import completion

DAYS_S: Final = 3 * 86_400.0
HOURS_S: Final = 13 * 3_600.0
VISIBILITY_S: Final = 60.0
pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(120)]  # thousands of requests


@pytest.fixture(autouse=True)
def _days_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retention is a transaction each minute, and not what this is about."""
    monkeypatch.setattr(janitor, "REST_S", 86_400.0)


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
async def test_a_job_delayed_by_three_days_starts_once_and_not_before(happens: Callable[[MemoryQueue], None]) -> None:
    stage = AwsStage()
    happens(stage.bells)
    async with served(stage, DAYS_S - REST_S) as (client, agent):
        due_s = await delayed(client, DAYS_S)
        await anyio.sleep(DAYS_S + REST_S)  # virtual
        (started_s,) = agent.started
        assert due_s <= started_s <= due_s + 1
        assert stage.bells.sent


async def test_a_timer_mends_a_broker_that_has_missed_the_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(timekeeper: Timekeeper) -> None:
        async for _ in timekeeper._inbox:
            pass

    monkeypatch.setattr(Timekeeper, "run", never)
    async with served(AwsStage(), DAYS_S - REST_S) as (client, agent):
        due_s = await delayed(client, DAYS_S)
        await anyio.sleep(DAYS_S + REST_S)  # virtual
        (started_s,) = agent.started
        assert due_s <= started_s <= due_s + SLOT_MS / 1_000 + 1


async def test_a_job_of_more_than_twelve_hours_keeps_its_lease_and_its_heartbeats_send_no_ticket() -> None:
    stage = AwsStage()
    async with stage.opened() as client:
        job = await client.submit(JobSpec(command="true"))
        (lease,) = await Agent(client).lease()
        beat = UpdateJob(leases=(lease.ref,), visibility_ms=int(VISIBILITY_S * 1_000))
        while anyio.current_time() < HOURS_S:
            await anyio.sleep(VISIBILITY_S * 0.8)  # virtual
            (kept,) = (await client._ask(beat)).leases
            assert kept.verdict is Verdict.KEPT
        await client._ask(completion(lease))
        kinds = [event.kind async for event in client.replay(job)]
        assert kinds == ["JOB_SCHEDULED", "JOB_LEASED", "JOB_FINISHED"]
        assert (await client.get(job)).state is JobState.COMPLETED
        await anyio.sleep(5)  # virtual
        assert not stage.bells.sent
        assert len(stage.bus.accepted) == 3


async def test_each_lifecycle_event_of_a_log_is_on_the_bus_with_its_sequence() -> None:
    stage = AwsStage()
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
