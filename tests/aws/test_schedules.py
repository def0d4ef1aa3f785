"""What docs/AWS.md shows of schedules and lifecycle events works as it stands there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from airunner.broker.aws import outbox
from airunner.broker.aws.opening import open_lines
from airunner.broker.aws.submissions import SCHEDULED_TIME, parse
from airunner.broker.store.awsurl import AwsUrl
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Identity
from airunner.broker.store.dynamodb.opening import open_dynamodb
from airunner.transport.ports import SYSTEM
from tests.aws.serving import Emulators
from tests.aws.stacks import Stack, applied
from tests.conformance.driving import Driver

PAGE = (Path(__file__).parents[2] / "docs" / "AWS.md").read_text()
BLOCKS: list[dict[str, Any]] = [json.loads(block) for block in re.findall(r"```json\n(.+?)```", PAGE, re.DOTALL)]
pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(60)]


def block(key: str) -> dict[str, Any]:
    """The page's block of JSON with this key."""
    (found,) = [block for block in BLOCKS if key in block]
    return found


@pytest.fixture(scope="module")
def stack(aws_emulators: Emulators) -> Iterator[Stack]:
    with applied(aws_emulators("ministack"), EventsQueue="true") as stack:
        yield stack


def test_the_message_of_the_schedule_submits_its_job() -> None:
    sent = block("ScheduleExpression")["Target"]["Input"]
    submission, request = parse(sent.replace(SCHEDULED_TIME, "2026-11-30T02:00:00Z"))
    (job,) = request.jobs
    assert (submission.schedule, submission.tenant) == ("nightly", "default")
    assert (job.command, job.args) == ("make", ("nightly",))


def test_the_schedule_is_accepted_with_queue_and_role_of_the_stack(stack: Stack) -> None:
    schedule = block("ScheduleExpression")
    target = schedule["Target"]
    queue, role = stack.outputs["SubmissionsArn"], stack.outputs["SchedulerRoleArn"]
    assert target["Arn"].rsplit(":", 1)[-1] == queue.rsplit(":", 1)[-1].replace(stack.name, "airunner")
    assert re.sub(r"-\w+$", "", target["RoleArn"].rsplit("/", 1)[-1]) == "airunner-SchedulerRole"
    scheduler = stack.aws.client("scheduler")
    scheduler.create_schedule(**schedule | {"Target": target | {"Arn": queue, "RoleArn": role}})
    assert scheduler.get_schedule(Name=schedule["Name"])["Target"]["Input"] == target["Input"]
    scheduler.delete_schedule(Name=schedule["Name"])


def test_the_end_of_a_job_comes_to_the_rules_queue_as_the_page_shows_it(stack: Stack) -> None:
    url = AwsUrl.parse(stack.url)
    identity = Identity(broker="one", fleet="ours", requests="tcp://a:1", events="tcp://a:2")
    with closing(open_dynamodb(url, identity, SYSTEM.wall_ms)) as engine:
        driver = Driver(Store(engine))
        (job_id,) = driver.ended(exit_code=1)
        entries = [event.entry for stored in engine.outbox(100) for event in outbox._events_of(stored)]

    async def put() -> None:
        with open_lines(url, print) as lines:
            assert lines.events
            await lines.events.bus.put(entries)

    anyio.run(put)
    sqs = stack.aws.client("sqs")
    (message,) = sqs.receive_message(QueueUrl=stack.outputs["EndedQueueUrl"], MaxNumberOfMessages=10)["Messages"]
    body, shown = json.loads(message["Body"]), block("time")
    assert (body["source"], body["detail-type"]) == (shown["source"], shown["detail-type"])
    assert body["detail"].keys() == shown["detail"].keys()
    assert (body["detail"]["job_id"], body["detail"]["state"]) == (job_id, "FAILED")
