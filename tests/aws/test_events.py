"""The whole broker beside real services: events at a rule's target, schedules, tickets, and what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import pytest

from airunner.protocol.errors import EXIT_UNAVAILABLE
from tests.acceptance.running import Cluster, RunningBroker, environment, make_home, run
from tests.aws.services import HAVE_ALL, Services, services
from tests.aws.serving import Emulators
from tests.virtualtime import real_time  # noqa: F401 - a fixture

pytestmark = [
    pytest.mark.unmeasured,
    pytest.mark.timeout(120),
]  # Scheduler looks every ten seconds
INSTANT = "2026-03-22T18:59:43Z"


@pytest.fixture(params=HAVE_ALL)
def aws_services(request: pytest.FixtureRequest, aws_emulators: Emulators) -> Iterator[Services]:
    """A table, queues and a bus in MiniStack, and in the real account, where one is named."""
    with services(aws_emulators(request.param)) as made:
        yield made


@pytest.fixture
def cluster(aws_services: Services, tmp_path: Path) -> Iterator[Cluster]:
    """`airunner orchestrator` on them."""
    make_home(tmp_path)
    running = Cluster(RunningBroker(tmp_path, aws_services.store, command="orchestrator"))
    yield running
    running.close()


def lines_of(cluster: Cluster, *arguments: str) -> list[dict[str, Any]]:
    """What a command prints, which has to succeed, a JSON object in each line."""
    done = cluster.airunner(*arguments)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_lifecycle_event_is_at_the_target_of_a_rule_with_its_sequence(
    cluster: Cluster, aws_services: Services
) -> None:
    cluster.agent()
    done = cluster.airunner("submit", "--json", "--", "sh", "-c", "echo secret-word; exit 3")
    assert done.returncode == 3, done.stderr.decode()
    log = [json.loads(line) for line in done.stdout.splitlines()]
    (job_id,) = {event["job_id"] for event in log if "job_id" in event}
    lifecycle = {(event["sequence"], event["kind"]) for event in log if event.get("kind", "").startswith("JOB_")}
    assert {kind for _, kind in lifecycle} == {"JOB_SCHEDULED", "JOB_LEASED", "JOB_FINISHED"}
    arrived: dict[tuple[int, str], dict[str, Any]] = {}
    for body in aws_services.receive(aws_services.events):
        assert "secret-word" not in body
        envelope = json.loads(body)
        detail = envelope["detail"]
        assert (envelope["source"], envelope["detail-type"]) == ("airunner", detail["kind"])
        assert (detail["tenant"], detail["queue"], detail["job_id"]) == ("default", "default", job_id)
        arrived[detail["sequence"], detail["kind"]] = detail
        if arrived.keys() == lifecycle:
            break
    finished = next(detail for (_, kind), detail in arrived.items() if kind == "JOB_FINISHED")
    assert (finished["state"], finished["exit_code"]) == ("FAILED", 3)


def scheduled(events: Iterator[str]) -> str:
    """The job of the next JOB_SCHEDULED on the bus."""
    return next(
        str(envelope["detail"]["job_id"])
        for envelope in map(json.loads, events)
        if envelope["detail-type"] == "JOB_SCHEDULED"
    )


def test_a_schedules_instant_submits_once_also_when_it_is_delivered_twice(
    cluster: Cluster, aws_services: Services
) -> None:
    if aws_services.account.name == "live":
        pytest.skip("a schedule in a real account needs a role that Scheduler may take")
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
    body = {"schedule": "once", "instant": f"{at:%Y-%m-%dT%H:%M:%SZ}", "jobs": [{"command": "nightly"}]}
    scheduler = aws_services.account.client("scheduler")
    scheduler.create_schedule(
        Name=f"{aws_services.table}-once",
        ScheduleExpression=f"at({at:%Y-%m-%dT%H:%M:%S})",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={
            "Arn": aws_services.arn(aws_services.submissions),
            "RoleArn": "arn:aws:iam::000000000000:role/scheduler",
            "Input": json.dumps(body),
        },
    )
    events = aws_services.receive(aws_services.events)
    first = scheduled(events)
    for _ in range(3):
        aws_services.submit(**body)
    aws_services.submit(schedule="next", instant=INSTANT, jobs=[{"command": "next"}])
    second = scheduled(events)
    jobs = {job["id"]: job["command"] for job in lines_of(cluster, "list", "--json")}
    assert jobs == {first: "nightly", second: "next"}
    scheduler.delete_schedule(Name=f"{aws_services.table}-once")


def test_a_submission_that_is_wrong_is_named_and_goes_to_the_dead_letter_queue(
    cluster: Cluster, aws_services: Services
) -> None:
    aws_services.submit(schedule="nightly", instant="<aws.scheduler.scheduled-time>", jobs=[{"command": "make"}])
    line = cluster.broker.process.line("airunner broker: submission")
    assert "is refused: bad-request: instant: write <aws.scheduler.scheduled-time> in the schedule" in line
    assert json.loads(next(aws_services.receive(aws_services.dead)))["schedule"] == "nightly"


def test_a_long_delay_has_a_timer_in_the_queue_and_a_short_one_has_none(
    cluster: Cluster, aws_services: Services
) -> None:
    for not_before in ("10s", "3d"):
        assert cluster.airunner("submit", "--no-monitor", "--not-before", not_before, "--", "true").returncode == 0
    delayed = "0"
    while delayed == "0":
        delayed = aws_services.sqs.get_queue_attributes(
            QueueUrl=aws_services.bells, AttributeNames=["ApproximateNumberOfMessagesDelayed"]
        )["Attributes"]["ApproximateNumberOfMessagesDelayed"]
    assert delayed == "1"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"bells": "missing"}, "cannot use the queue missing: AWS.SimpleQueueService.NonExistentQueue: "),
        ({"submissions": "missing"}, "cannot use the queue missing: AWS.SimpleQueueService.NonExistentQueue: "),
        ({"bus": "missing"}, "cannot use the event bus missing: ResourceNotFoundException: "),
        ({"sqs": "http://127.0.0.1:1"}, "cannot use the queue {table}-bells: EndpointConnectionError: "),
    ],
)
def test_what_is_missing_is_one_line_with_the_code_of_aws(
    aws_services: Services, tmp_path: Path, changed: dict[str, str], words: str
) -> None:
    make_home(tmp_path)
    given = aws_services.store if "bus" not in changed else aws_services.store.partition("&bus=")[0]
    store = f"{given}&{urlencode(changed)}"
    listen = ("--listen", "tcp://127.0.0.1:0", "--events", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0")
    done = run(environment(tmp_path), "orchestrator", "--store", store, *listen)
    assert done.returncode == EXIT_UNAVAILABLE, done.stderr.decode()
    (line,) = done.stderr.decode().splitlines()
    assert words.format(table=aws_services.table) in line
    assert line.endswith(("none in --store", "leave out bus= in --store"))
    keys = aws_services.account.client().query(
        TableName=aws_services.table,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": "BROKERS"}},
    )
    assert keys["Count"] == 0, "no other broker sees one that cannot start"


def test_a_broker_without_queues_says_so(aws_services: Services, tmp_path: Path) -> None:
    make_home(tmp_path)
    broker = RunningBroker(tmp_path, f"{aws_services.account.store(aws_services.table)}&sqs=none")
    try:
        assert [line for line in broker.process.lines if "without bells, and no schedule submits jobs" in line]
    finally:
        assert broker.stop() == 0


def test_the_orchestrator_needs_a_table(tmp_path: Path) -> None:
    make_home(tmp_path)
    done = run(environment(tmp_path), "orchestrator", "--store", "memory:")
    assert (done.returncode, done.stderr.decode()) == (
        64,
        "airunner: --store has to name a table of DynamoDB, as aws:TABLE; `airunner broker` takes other stores\n",
    )


class ClosedBus(BaseHTTPRequestHandler):
    """An EventBridge that has the bus, and takes no events."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        puts = self.headers["X-Amz-Target"] == "AWSEvents.PutEvents"
        answer = json.dumps({"__type": "InternalException"} if puts else {"Name": "bus"}).encode()
        self.send_response(503 if puts else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def closed_bus() -> Iterator[str]:
    """URL of such an EventBridge."""
    with ThreadingHTTPServer(("127.0.0.1", 0), ClosedBus) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("sender", ["adopter", "next process"])
def test_events_that_a_killed_broker_could_not_send_are_sent_by_its(
    sender: str, aws_services: Services, closed_bus: str, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    second = tmp_path / "second" if sender == "adopter" else first
    make_home(first)
    dying = Cluster(RunningBroker(first, f"{aws_services.store}&events={closed_bus}"))
    if sender == "adopter":
        shutil.copytree(first, second, ignore=lambda _folder, names: {"id"}.intersection(names))
    for name in ("one", "two"):
        assert dying.airunner("submit", "--no-monitor", "--", name).returncode == 0
    assert dying.airunner("cancel", "--yes", "@last").returncode == 0
    dying.broker.process.line("airunner broker: degraded: events: the event bus does not accept events: Internal")
    jobs = {job["id"] for job in lines_of(dying, "list", "--json")}
    dying.broker.kill()
    adopter = RunningBroker(second, aws_services.store)
    try:
        left = {(job, "JOB_SCHEDULED") for job in jobs}
        cancelled = set[tuple[str, str]]()
        for envelope in map(json.loads, aws_services.receive(aws_services.events)):
            found = (envelope["detail"]["job_id"], envelope["detail-type"])
            left.discard(found)
            cancelled |= {found} if found[1] in {"JOB_CANCEL_REQUESTED", "JOB_FINISHED"} else set()
            if not left and len(cancelled) == 2:
                break
    finally:
        adopter.stop()
