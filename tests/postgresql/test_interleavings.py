"""Two brokers change one job, one queue, or are asked the same: in whatever order their trips run, one was first.

What both reply, and what is stored in the end, has to be what it is if one batch follows the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache, partial
from typing import Any, Final, NamedTuple

import psycopg
import pytest

from airunner.broker.lifecycle.commands import Adopt, Command, Expire, RenewAll, Retain, TenantRequest
from airunner.broker.store.batch import Store
from airunner.broker.store.postgres.batches import Memory
from airunner.broker.store.postgres.engine import PostgresEngine
from airunner.broker.store.postgres.saving import FIELDS
from airunner.broker.store.rows import BrokerSeen
from airunner.protocol.fields import JobSpec
from airunner.protocol.replies import QueueMode
from airunner.protocol.requests import (
    CancelJob,
    EnqueueJob,
    PublishJobEvents,
    ReleaseJob,
    RemoveSecret,
    RetryJob,
    SetSecret,
    StoreRequest,
    UpdateJob,
    UpdateQueue,
)
from tests.conformance.driving import VISIBILITY_MS, Driver, batch, completion
from tests.postgresql.fleets import fleet
from tests.postgresql.interleaving import INTERLEAVED, SERIAL, Stepped
from tests.postgresql.serving import Servers

pytestmark = [pytest.mark.unmeasured, pytest.mark.timeout(120)]  # the first test makes a cluster
JOB: Final = ", ".join(name for name in FIELDS if name != "number")
STORED: Final = "mode != 'open' OR (tenant, name) IN (SELECT tenant, queue FROM airunner.job)"
COUNTS: Final = "sum(waiting), sum(delayed), sum(running), sum(size_bytes)"
COMPARED: Final = f"""
SELECT {JOB} FROM airunner.job
SELECT job_id, first_sequence, count, events FROM airunner.segment JOIN airunner.job USING (number)
SELECT job_id, waiting.queue, waiting.needs, place FROM airunner.waiting JOIN airunner.job USING (number)
SELECT job_id, fact FROM airunner.metadata JOIN airunner.job USING (number)
SELECT * FROM airunner.record
SELECT * FROM airunner.secret
SELECT * FROM airunner.lease_grant
SELECT * FROM airunner.queue WHERE {STORED}
SELECT tenant, queue, {COUNTS} FROM airunner.tally GROUP BY 1, 2 HAVING ({COUNTS}) != (0, 0, 0, 0)
SELECT tenant, queue, words, sum(jobs) FROM airunner.kind GROUP BY 1, 2, 3 HAVING sum(jobs) != 0
SELECT broker, dead FROM airunner.broker
""".strip().splitlines()
"""What is compared, in any order; numbers differ from run to run, so that rows are named by their jobs."""
Rows = set[Any]


class Outcome(NamedTuple):
    """What both brokers replied, and what is stored."""

    replies: tuple[object, ...]
    rows: list[Rows]


class Ground:
    """Database that is as it was before each run, and two brokers."""

    def __init__(self, engines: Sequence[PostgresEngine], server: psycopg.Connection[Any]) -> None:
        self.engines = engines
        self.server = server
        self.driver = Driver(Store(engines[0]))
        self.commands = prepared(self.driver, Driver(Store(engines[2])))
        self.brokers = [Stepped(engine, server) for engine in engines[:2]]
        names = server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'airunner'").fetchall()
        tables = [name for (name,) in names if name != "installed"]
        server.execute("CREATE SCHEMA saved")
        for name in tables:
            server.execute(f"CREATE TABLE saved.{name} AS SELECT * FROM airunner.{name}".encode())
        copied = (
            f"DELETE FROM airunner.{name}; INSERT INTO airunner.{name} SELECT * FROM saved.{name}" for name in tables
        )
        self.restoring = "; ".join(copied).encode()

    def restore(self) -> None:
        """Make the database as it was."""
        self.server.execute(self.restoring)  # at once: in one transaction
        for engine in self.engines:
            engine._memory = Memory()

    def run(self, commands: Sequence[Command], order: Sequence[int]) -> Outcome:
        """Let two brokers apply a command each, their trips in an order."""
        self.restore()
        for broker, command in zip(self.brokers, commands, strict=True):
            broker.begin([command], self.driver.now_ms)
        for turn in order:
            self.brokers[turn].step()
        while not all(broker.over for broker in self.brokers):
            for broker in self.brokers:
                broker.step()
        for again in (command for command in commands if isinstance(command, Retain)):
            # A step of retention leaves what others have locked to the next one, and logs to the one after that.
            for _ in range(3):
                self.brokers[0].run([again], self.driver.now_ms)
        assert [broker.deadlocks for broker in self.brokers] == [0, 0]
        replies = tuple(told(broker.applied().done[0].reply) for broker in self.brokers)
        return Outcome(replies, [set(self.server.execute(sql.encode())) for sql in COMPARED])


def told(reply: object) -> object:
    """A reply without what it names in words."""
    return getattr(reply, "code", reply)


def prepared(driver: Driver, dying: Driver) -> dict[str, Command]:
    """Fill the store, and list commands on the same jobs, queue and requests."""
    (ended,) = driver.ended("ended")
    driver.now_ms += 10
    first, second = driver.started(), driver.started()
    driver.publish(batch(second, 0, "x"))
    dying.now_ms = driver.now_ms
    dying.draw = driver.draw  # type: ignore[method-assign]
    left = dying.started()
    waiting, _ = driver.enqueue(
        JobSpec(command="a", require={"os": "linux"}, metadata={"k": "v"}), JobSpec(command="b")
    )
    driver.outcome(SetSecret(queue="default", name="S", box=b"first"))
    enqueue = EnqueueJob(jobs=(JobSpec(command="c", require={"os": "linux"}), JobSpec(command="d", queue="new")))
    asked: dict[str, Callable[[], StoreRequest]] = {
        "enqueue": lambda: enqueue,
        "enqueue more": lambda: enqueue,
        "dequeue": lambda: driver.dequeue(tags={"os": "linux"}, slots=2),
        "dequeue one": lambda: driver.dequeue("new", "default"),
        "update": lambda: UpdateJob(leases=(first.ref, second.ref, left.ref), visibility_ms=VISIBILITY_MS),
        "publish": lambda: PublishJobEvents(batches=(batch(second, 1, "y"), batch(first, 0, "x"))),
        "publish all": lambda: PublishJobEvents(
            batches=(batch(first, 0, "x", "y"), batch(second, 0, "x", "y")), completions=(completion(second, 2),)
        ),
        "complete": lambda: completion(first, exit_code=1),
        "release": lambda: ReleaseJob(lease=first.ref),
        "cancel": lambda: CancelJob(job_id=waiting),
        "cancel running": lambda: CancelJob(job_id=first.job_id),
        "retry": lambda: RetryJob(job_id=ended),
        "pause": lambda: UpdateQueue(queue="default", mode=QueueMode.PAUSED),
        "drain": lambda: UpdateQueue(queue="new", mode=QueueMode.DRAINING),
        "set": lambda: SetSecret(queue="default", name="S", box=b"second"),
        "remove": lambda: RemoveSecret(queue="default", name="S"),
    }
    commands: dict[str, Command] = {name: driver.ask(make()) for name, make in asked.items()}
    driver.now_ms += VISIBILITY_MS  # all leases are over
    seen = BrokerSeen("broker-2", 1, dying_beat(dying))
    retain = Retain(finished_before_ms=driver.now_ms)
    return {**commands, "expire": Expire(), "renew": RenewAll(), "retain": retain, "adopt": Adopt(seen=seen)}


def dying_beat(driver: Driver) -> int:
    """The beat of the broker that will be adopted."""
    engine = driver.store.engine
    assert isinstance(engine, PostgresEngine)
    ((beat,),) = engine._trips.link.connection.execute("SELECT beat FROM airunner.broker WHERE broker = 'broker-2'")
    return int(beat)


@pytest.fixture(scope="module")
def ground(postgresql_servers: Servers) -> Iterator[Ground]:
    server = postgresql_servers(15)
    database = server.database()
    connection = psycopg.connect(server.url(database), autocommit=True)
    with fleet(server.url(database), 3) as engines, closing(connection):
        made = Ground(engines, connection)
        yield made
        for broker in made.brokers:
            broker.close()
    server.drop(database)


NAMES: Final = (
    *("enqueue", "enqueue more", "dequeue", "dequeue one", "update", "publish", "publish all", "complete", "release"),
    *("cancel", "cancel running", "retry", "pause", "drain", "set", "remove", "expire", "renew", "retain", "adopt"),
)


@pytest.mark.parametrize("name", NAMES)
def test_two_batches_do_what_one_after_the_other_does(name: str, ground: Ground):
    assert {*ground.commands} == {*NAMES}
    for other in NAMES[NAMES.index(name) :]:
        pair = (ground.commands[name], ground.commands[other])
        serial = cache(partial(ground.run, pair))
        for order in INTERLEAVED:
            found = ground.run(pair, order)
            assert any(found == serial(one_first) for one_first in SERIAL), (name, other, order)


def test_a_queue_is_not_paused_while_a_lease_goes_on_and_no_later_lease_passes_who_waits_to_pause_it(ground: Ground):
    """Both orders of their replies would be right, so the comparison would not see that nobody waits."""
    ground.restore()
    first, pausing, later = (Stepped(engine, ground.server) for engine in ground.engines)
    for broker, name in ((first, "dequeue"), (pausing, "pause"), (later, "dequeue one")):
        broker.begin([ground.commands[name]], ground.driver.now_ms)
    order = (first, pausing, pausing, later, later, first)  # the second one finds the row locked, and locks the table
    for broker in order:
        broker.step()
    over = [broker.over for broker in (first, pausing, later)]
    while not (pausing.over and later.over):
        pausing.step()
        later.step()
    for broker in (first, pausing, later):
        broker.close()
    assert over == [True, False, False]
    assert [len(broker.applied().done[0].reply.leases) for broker in (first, later)] == [2, 0]


def test_a_request_is_answered_once_by_two_brokers(ground: Ground):
    """The comparison would not see it if both orders were wrong."""
    asked = ground.commands["enqueue"]
    assert isinstance(asked, TenantRequest)
    outcome = ground.run((asked, asked), INTERLEAVED[0])
    assert outcome.replies[0] == outcome.replies[1]
