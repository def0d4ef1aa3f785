"""A list says why each of its jobs waits, with a number of requests that does not depend on how many they are."""

from __future__ import annotations

import pytest

from airunner.client.cli import waiting
from airunner.client.cli.causes import Cause, Why, short_text
from airunner.client.cli.joblist import no_queue_text
from airunner.client.cli.waiting import QUEUES_MAX, ListedJob, Reasons
from airunner.protocol.job import JobState, JobSummary
from airunner.protocol.names import JobId
from airunner.protocol.replies import QueueMode
from airunner.protocol.requests import DequeueJob
from tests.client.wire import brokered

NOON_MS = 11_574 * 86_400_000 + 43_200_000  # of 2001-09-09


async def test_reasons_are_asked_for_once_for_all_jobs_of_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    async with brokered() as (wire, client):
        await client._ask(DequeueJob(agent="a", queues=("served",), visibility_ms=1_000, token_seed=bytes(32)))
        await client.update_queue("paused", QueueMode.PAUSED)
        for queue in ("served", "served", "paused", "nowhere"):
            await client.submit(command="true", queue=queue, metadata={"for": queue})
        await client.submit(command="true", queue="served", require={"os": "mac"})
        await client.submit(command="true", queue="served", not_before_ms=9 * NOON_MS)
        jobs = (await client.list_page(details=True)).jobs
        labels = ["", "", "nowhere", "paused", "served", "served"]
        assert [job.metadata.get("for", "") for job in jobs] == labels
        before, reasons = len(wire.asked), Reasons(client)
        listed = [job for job in await reasons.add(jobs) if isinstance(job, ListedJob) and job.why]
        asked = wire.asked[before:]
        assert asked.count("ListQueues") == 3
        assert (asked.count("ListAgents"), len(asked) <= 3 + 2 + 3) == (1, True)
        await reasons.add(jobs * 9)
        assert len(wire.asked) == before + len(asked)
        texts = [short_text(job.why, NOON_MS) for job in listed if job.why]
        assert texts[1:] == ["no agent has its tags", "no agent serves the queue", "paused", "1 ahead", "next"]
        assert texts[0].startswith("not due until 2255-")
        many = [JobSummary(id=JobId("x"), state=JobState.SCHEDULED, submitted_ms=1, queue=f"q{n}", command="true")
                for n in range(QUEUES_MAX + 1)]  # fmt: skip
        whys = [job.why for job in await Reasons(client).add(many) if isinstance(job, ListedJob)]
        assert [why is not None for why in whys] == [*[True] * QUEUES_MAX, False]
        monkeypatch.setattr(waiting, "AGENTS_MAX", 0)
        unsure = [job.why for job in await Reasons(client).add(jobs) if isinstance(job, ListedJob)]
        assert [why and why.cause for why in unsure] == [Cause.NOT_DUE, None, None, Cause.QUEUE_PAUSED, None, None]
        assert await no_queue_text(client, "typo") == "no jobs in queue 'typo'; queues: nowhere, paused, served"


@pytest.mark.parametrize(
    ("why", "text"),
    [
        (Why(cause=Cause.NOT_DUE, text="", until_ms=NOON_MS), "not due until 12:00 UTC"),
        (Why(cause=Cause.RETRY_PAUSE, text="", until_ms=NOON_MS + 86_400_000), "no retry until 2001-09-10 12:00 UTC"),
        (Why(cause=Cause.SLOTS_BUSY, text="", ahead=1_000), "1,000 ahead, slots busy"),
        (Why(cause=Cause.SLOTS_BUSY, text=""), "slots busy"),
        (Why(cause=Cause.TURN, text=""), ""),
        (Why(cause=Cause.UNKNOWN, text=""), ""),
    ],
)
def test_a_reason_is_short_in_a_column(why: Why, text: str) -> None:
    assert short_text(why, NOON_MS) == text
