"""A schedule's instant is submitted once, with the rules of a client's request, and a bad message is named once."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from airunner.broker.aws.ports import AwsFault
from airunner.broker.aws.submissions import CONDITION, parse, request_id_of
from airunner.broker.store.quotas import Quotas
from airunner.client.client import Client
from airunner.protocol.errors import BadRequest
from airunner.protocol.fields import JobSpec
from airunner.protocol.replies import QueueMode
from airunner.protocol.requests import ENQUEUE_MAX
from tests.broker.aws.queues import RECEIVES_MAX, VISIBILITY_S
from tests.broker.aws.stage import AwsStage

INSTANT = "2026-03-22T18:59:43Z"
JOB = {"command": "make", "queue": "ci", "metadata": {"team": "web"}}


def body(**fields: Any) -> str:
    return json.dumps({"schedule": "nightly", "instant": INSTANT, "jobs": [JOB], **fields})


async def pass_(seconds: float) -> None:
    await anyio.sleep(seconds)  # virtual


async def commands(client: Client) -> list[str]:
    return sorted([job.command async for job in client.list()])


async def test_an_instant_is_submitted_once_however_often_it_is_delivered() -> None:
    stage = AwsStage()
    async with stage.opened() as client:
        stage.submissions.put(body())
        stage.submissions.put(body())
        stage.submissions.put(body(), delay_s=3_600)
        await pass_(4_000)
        assert await commands(client) == ["make"]
        assert (stage.submissions.stored, stage.submissions.dead, stage.counts["submissions"]) == ({}, [], 3)
        stage.submissions.put(body(instant="2026-03-23T18:59:43Z"))
        stage.submissions.put(body(schedule="hourly"))
        await pass_(1)
        assert await commands(client) == ["make"] * 3
        assert not stage.said


async def test_all_fields_of_the_job_are_those_of_the_message() -> None:
    submission, request = parse(body(jobs=[{**JOB, "priority": 3, "retry": {"limit": 2}}]))
    assert request.jobs[0].metadata == {"team": "web"}
    assert (submission.tenant, request.jobs[0].priority) == ("default", 3)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("no JSON", "is no submission"),
        ("{}", "missing required field"),
        ("[" * 100_000, "is no submission"),
        (body(jobs=[]), "jobs"),
        (body(jobs=[JOB] * (ENQUEUE_MAX + 1)), "jobs"),
        (body(jobs=[{"command": "x\0y"}]), "NUL"),
        (body(jobs=[{"command": "x", "queue": "no name"}]), "queue"),
        (body(jobs=[{"command": "x", "priority": 2**60}]), "priority"),
        (body(jobs=[{"command": "x", "priority": 2**70}]), "a number is too large"),
        (body(jobs=[{"command": "x", "stdin_bytes": 3}]), "standard input is missing"),
        (body(jobs=[{"command": "x", "metadata": {"a=b": "c"}}]), "metadata"),
        (
            body(jobs=[JOB, {"command": "x", "enviroment": {}}]),
            r"jobs\[1\] has no field 'enviroment': write environment",
        ),
        (body(jobs=[{"command": "x", "zzz": 1}]), r"jobs\[0\] has no field 'zzz'$"),
        (body(jobs=["make"]), "jobs"),
        (body(instant="<aws.scheduler.scheduled-time>"), "write <aws.scheduler.scheduled-time> in the schedule"),
        (body(schedule=""), "schedule"),
        (body(tenant="no name"), "tenant"),
        (body(tenants="default"), "unknown field"),
    ],
)
def test_a_message_that_breaks_a_rule_is_a_bad_request(message: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        parse(message)


def test_request_ids_are_of_the_schedule_and_the_instant() -> None:
    same, other = parse(body())[0], parse(body(jobs=[{"command": "x"}], tenant="acme"))[0]
    assert request_id_of(same) == request_id_of(other)
    shifted = parse(body(schedule="nightly2026-03-22T18:59:43Z", instant="2026-03-22T18:59:43Z"))[0]
    assert request_id_of(shifted) != request_id_of(same)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("no JSON", "m0 is refused: bad-request: the message is no submission: JSON is malformed"),
        (
            body(tenant="acme"),
            f"m0 of schedule 'nightly' at {INSTANT} is refused: forbidden: schedules may not submit for tenant acme",
        ),
    ],
)
async def test_a_bad_message_is_named_once_and_left_to_the_dead_letter_queue(message: str, words: str) -> None:
    stage = AwsStage()
    async with stage.opened() as client:
        stage.submissions.put(message)
        stage.submissions.put(body())
        await pass_(VISIBILITY_S * (RECEIVES_MAX + 1))
        assert await commands(client) == ["make"], "it stops no other"
        assert stage.submissions.dead == [message]
        (said,) = stage.said
        assert said.startswith(f"submission {words}")
        assert said.endswith("and then moves it to the dead-letter queue")
        assert stage.counts["submissions_refused"] == 1


async def test_an_instant_with_other_jobs_is_a_conflict() -> None:
    stage = AwsStage()
    async with stage.opened() as client:
        stage.submissions.put(body())
        await pass_(1)
        stage.submissions.put(body(jobs=[{"command": "other"}]))
        await pass_(1)
        assert await commands(client) == ["make"]
        assert "conflict" in stage.said[0]


async def test_a_queue_that_is_drained_for_a_while_delays_the_jobs() -> None:
    stage = AwsStage()
    async with stage.opened() as client:
        await client.update_queue("ci", QueueMode.DRAINING)
        stage.submissions.put(body())
        await pass_(1)
        assert "draining: queue ci is being drained" in stage.said[0]
        await client.update_queue("ci", QueueMode.OPEN)
        await pass_(VISIBILITY_S + 1)
        assert await commands(client) == ["make"]
        assert not stage.submissions.stored


async def test_a_tenants_quota_holds_for_schedules_too() -> None:
    stage = AwsStage()
    stage.quotas = Quotas(waiting_max=1)
    async with stage.opened() as client:
        stage.submissions.put(body(jobs=[JOB, JOB]))
        await pass_(1)
        assert "quota" in stage.said[0]
        assert await commands(client) == []


async def test_a_queue_that_fails_is_reported_and_asked_again() -> None:
    stage = AwsStage()
    async with stage.opened() as client:
        stage.submissions.fault = AwsFault("AccessDenied: no")
        await pass_(60)
        assert "AccessDenied: no; what schedules send waits there" in stage.health.conditions[CONDITION]
        stage.submissions.put(body())
        stage.submissions.fault = None
        await pass_(60)
        assert stage.health.conditions == {}
        assert await commands(client) == ["make"]


async def test_clients_get_their_own_replies_meanwhile() -> None:
    stage = AwsStage()
    async with stage.opened() as client:
        for at in range(10):
            stage.submissions.put(body(schedule=f"s{at}"))
            await client.submit(JobSpec(command="own"))
        await pass_(1)
        assert await commands(client) == ["make"] * 10 + ["own"] * 10
