"""Round trips of a batch: two, whatever is in it. They are counted in libpq's own trace of its messages."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from airunner.broker.lifecycle.commands import Adopt, Beat, Command, Expire, RenewAll, Retain
from airunner.broker.requests import KINDS, Execution
from airunner.broker.store.batch import Store
from airunner.broker.store.postgres.engine import PostgresEngine
from airunner.broker.store.rows import BrokerSeen
from airunner.protocol.fields import JobSpec, TerminalSize
from airunner.protocol.replies import QueueMode
from airunner.protocol.requests import (
    CancelJob,
    CompleteJob,
    DequeueJob,
    EnqueueJob,
    EnqueueJobWithStdin,
    PublishJobEvents,
    ReleaseJob,
    RemoveSecret,
    RetryJob,
    SendInput,
    SetSecret,
    StoreRequest,
    UpdateJob,
    UpdateQueue,
)
from tests.conformance.driving import VISIBILITY_MS, Driver, batch, completion
from tests.postgresql.fleets import fleet

pytestmark = pytest.mark.timeout(120)  # the first test of a version makes a cluster
TAGS = {"os": "linux"}
SPECS = (JobSpec(command="a", require=TAGS, metadata={"k": "v"}), JobSpec(command="b", queue="other"))


class Trips:
    """Counts the messages after which libpq waits for the server."""

    def __init__(self, engine: PostgresEngine) -> None:
        self.engine = engine

    @contextmanager
    def expected(self, most: int) -> Iterator[None]:
        """Fail if this block takes more trips, or none."""
        with tempfile.TemporaryFile("w+") as trace:
            connection = self.engine._trips.link.connection.pgconn
            connection.trace(trace.fileno())
            try:
                yield
            finally:
                connection.untrace()
            trace.seek(0)
            sent = [line.split("\t") for line in trace.read().splitlines()]
        waits = [name for _, sender, _, name, *_ in sent if sender == "F" and name in {"Sync", "Query"}]
        assert 1 <= len(waits) <= most, waits


@pytest.fixture
def driver(database: str) -> Iterator[Driver]:
    with fleet(database, 2) as (engine, other):
        Store(other).apply([Beat()], 1)
        yield Driver(Store(engine))


@pytest.fixture
def trips(driver: Driver) -> Trips:
    engine = driver.store.engine
    assert isinstance(engine, PostgresEngine)
    return Trips(engine)


def requests(driver: Driver) -> dict[type, Callable[[], StoreRequest]]:
    """A request of each kind that changes something; the store is prepared so that it does."""
    ended = driver.ended("ended", "again")
    driver.enqueue(JobSpec(command="stdin", queue="waits", not_before_ms=driver.now_ms + 1))
    leases = [driver.started() for _ in range(5)]
    cancelled = driver.submit("cancelled", queue="cancelled")
    driver.outcome(SetSecret(queue="default", name="S", box=b"box"))
    return {
        EnqueueJob: lambda: EnqueueJob(jobs=SPECS),
        EnqueueJobWithStdin: lambda: EnqueueJobWithStdin(job=JobSpec(command="a", stdin_bytes=3), stdin=b"abc"),
        DequeueJob: lambda: driver.dequeue("default", "other", slots=2, tags=TAGS),
        UpdateJob: lambda: UpdateJob(leases=(leases[0].ref,), visibility_ms=VISIBILITY_MS),
        PublishJobEvents: lambda: PublishJobEvents(
            batches=(batch(leases[1], 0, "x"),), completions=(completion(leases[1], 1),)
        ),
        CompleteJob: lambda: completion(leases[2], exit_code=1),
        ReleaseJob: lambda: ReleaseJob(lease=leases[3].ref),
        CancelJob: lambda: CancelJob(job_id=cancelled[0]),
        SendInput: lambda: SendInput(job_id=leases[4].job_id, resize=TerminalSize(cols=99)),
        RetryJob: lambda: RetryJob(job_id=ended[0]),
        UpdateQueue: lambda: UpdateQueue(queue="default", mode=QueueMode.DRAINING),
        SetSecret: lambda: SetSecret(queue="default", name="T", box=b"box"),
        RemoveSecret: lambda: RemoveSecret(queue="default", name="S"),
    }


def own(driver: Driver) -> Sequence[Command]:
    seen = BrokerSeen("broker-1", 1, 1)
    return Expire(), RenewAll(), Retain(finished_before_ms=driver.now_ms + 1, store_bytes_max=1), Beat(), Adopt(seen)


def test_each_batch_takes_two_trips(driver: Driver, trips: Trips):
    made = requests(driver)
    assert {kind for kind, row in KINDS.items() if row.execution is Execution.CHANGE} == {*made}
    for make in made.values():
        asked = driver.ask(make())
        with trips.expected(2):
            (first,) = driver.apply(asked).done
        with trips.expected(2):
            (again,) = driver.apply(asked).done
        assert "Refused" not in type(first.reply).__name__
        assert type(again.reply) is type(first.reply)
    for command in own(driver):
        with trips.expected(2):
            driver.apply(command)


def test_a_batch_of_everything_takes_two_trips(driver: Driver, trips: Trips):
    commands: list[Command] = [driver.ask(make()) for make in requests(driver).values()]
    with trips.expected(2):
        done = driver.apply(*commands, *own(driver)).done
    assert len(done) == len(commands) + 5
    assert done[-1].news.adopted == {"broker-1"}
