"""`airunner store check` and `doctor` look at a store on DynamoDB while brokers use it, and change nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from airunner.__main__ import run
from airunner.broker.checking import StoreReport, check_logs, check_table
from airunner.broker.store.awsurl import AwsUrl
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Identity
from airunner.broker.store.dynamodb.engine import DynamoEngine
from airunner.broker.store.dynamodb.inspecting import CHUNK, LogReader
from airunner.broker.store.dynamodb.opening import open_dynamodb
from airunner.broker.store.dynamodb.schema import JOB, LOG, TTL, job_pk
from airunner.broker.store.dynamodb.table import Table
from airunner.broker.store.rows import JobRow
from airunner.protocol.errors import EXIT_IO, OperatorError
from airunner.protocol.replies import JobCompleted
from airunner.transport.ports import SYSTEM
from tests.aws.serving import Account
from tests.conformance.driving import Driver, batch, completion

TRIES_MAX = 100  # an index of AWS is late
pytestmark = pytest.mark.timeout(120)  # a table of AWS takes long to make
PIECES = ("some", "more" * 1_000)  # that are no part of the job's item


@contextmanager
def brokering(url: str) -> Iterator[tuple[Driver, DynamoEngine]]:
    identity = Identity(broker="one", fleet="ours", requests="tcp://a:1", events="tcp://a:2")
    with closing(open_dynamodb(AwsUrl.parse(url), identity, SYSTEM.wall_ms)) as engine:
        yield Driver(Store(engine)), engine


def written(driver: Driver) -> str:
    """Submit a job with a log of several segments, some of them beside the job's item, and end it."""
    lease = driver.started()
    for at, piece in enumerate(PIECES):
        driver.publish(batch(lease, at, piece))
    driver.reply(JobCompleted, completion(lease, len(PIECES)))
    return lease.job_id


@pytest.fixture
def url(aws: Account, aws_table: str) -> str:
    return aws.store(aws_table)


def checked(url: str, jobs: int) -> tuple[StoreReport, str, int]:
    """Check a store, again until the index shows so many jobs."""
    for _ in range(TRIES_MAX):
        if (found := check_table(url))[0].jobs == jobs:
            break
    return found


def content(aws: Account, table: str) -> list[dict[str, Any]]:
    items = aws.client().scan(TableName=table)["Items"]
    return sorted(items, key=lambda item: (item["pk"]["S"], item["sk"]["S"]))


def test_every_log_of_every_tenant_is_checked_and_nothing_is_changed(url: str, aws: Account, aws_table: str) -> None:
    with brokering(url) as (driver, _):
        ids = [(written(driver), "home")]
        ids += [(job_id, "home") for job_id in driver.submit(*("true",) * (CHUNK + 3))]
        ids += [(job_id, "other") for job_id in driver.submit(tenant="other")]
        driver.cancel(ids[1][0])
        events = sum(len(driver.log(job_id, tenant=tenant)) for job_id, tenant in ids)
    before = content(aws, aws_table)
    report, name, size_bytes = checked(url, len(ids))
    assert (report.jobs, report.events, report.faults) == (len(ids), events, ())
    assert name == f"aws:{aws_table}"
    assert size_bytes > sum(map(len, PIECES))
    assert content(aws, aws_table) == before


def test_a_hole_in_a_log_is_found(url: str, aws: Account, aws_table: str, capsys: pytest.CaptureFixture[str]) -> None:
    with brokering(url) as (driver, _):
        job_id = written(driver)
    checked(url, 1)
    apart = [item for item in content(aws, aws_table) if item["sk"]["S"].startswith(LOG)]
    key = {name: apart[0][name] for name in ("pk", "sk")}
    aws.client().delete_item(TableName=aws_table, Key=key)
    assert run(["store", "check", "--store", url]) == EXIT_IO
    assert f"job {job_id}: its log has a hole" in "".join(capsys.readouterr())


def test_jobs_before_a_damaged_one_are_checked(url: str, aws: Account, aws_table: str) -> None:
    with brokering(url) as (driver, _):
        _, second, _ = driver.submit("true", "true", "true")
    checked(url, 3)
    aws.client().update_item(
        TableName=aws_table,
        Key={"pk": {"S": job_pk("home", second)}, "sk": {"S": JOB}},
        UpdateExpression="SET r = :nonsense",
        ExpressionAttributeValues={":nonsense": {"B": b"\xc1"}},
    )
    report, _, _ = check_table(url)
    assert report.jobs == 1
    (fault,) = report.faults
    assert fault.words.startswith("the check had to end at the job after number ")


class Raced(LogReader):
    """Reader of a store with one job, which changes as soon as it was read."""

    def __init__(self, table: Table, change: Callable[[], object]) -> None:
        super().__init__(table)
        self._change = change

    def jobs_after(self, number: int, limit: int) -> list[JobRow]:
        if found := super().jobs_after(number, limit):
            self._change()
        return found


@pytest.mark.parametrize("change", ["writes", "removes"])
def test_what_brokers_do_meanwhile_is_no_fault(url: str, change: str) -> None:
    with brokering(url) as (driver, engine):
        lease = driver.started()
        driver.publish(batch(lease, 0, *PIECES))

        def removes() -> None:
            driver.cancel(lease.job_id)
            driver.pass_ms(86_400_000)
            driver.sweep(finished_before_ms=driver.now_ms + 1)

        def writes() -> None:
            driver.publish(batch(lease, len(PIECES), "more" * 2_000))

        reader = Raced(engine.table, {"writes": writes, "removes": removes}[change])
        assert check_logs(reader, reader.read_again).faults == ()


def test_a_table_that_no_broker_has_used_has_nothing_to_check(url: str) -> None:
    with pytest.raises(OperatorError, match="no broker has used the table yet"):
        check_table(url)


def findings(url: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    """What doctor finds of a store."""
    run(["doctor", "--json", "--store", url])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if line["check"] == "store"]


def test_doctor_warns_of_settings_that_lose_a_store(
    url: str, aws: Account, aws_table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    without_queues = f"{url}&sqs=none"
    said = "\n".join(found["message"] for found in findings(without_queues, capsys))
    for words in ("no store yet", "no deletion protection", "no expiry of the attribute ttl", "point-in-time recovery"):
        assert words in said
    client = aws.client()
    client.update_time_to_live(TableName=aws_table, TimeToLiveSpecification={"AttributeName": TTL, "Enabled": True})
    with brokering(url):
        pass
    said = "\n".join(found["message"] for found in findings(without_queues, capsys))
    assert "no store yet" not in said
    assert "expiry" not in said


def test_doctor_says_what_is_missing(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = findings(url.replace("aws:", "aws:not-"), capsys)
    assert found["severity"] == "problem"
    assert "ResourceNotFoundException" in found["message"]
