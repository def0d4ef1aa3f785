"""The outbox of lifecycle events: each comes out at least once, whatever happens in between, and nothing grows."""

from __future__ import annotations

import msgspec

from airunner.broker.lifecycle.commands import Adopt, Beat, RenewAll
from airunner.broker.store.batch import Store
from airunner.broker.store.dynamodb.engine import DynamoEngine
from airunner.broker.store.dynamodb.outbox import INSIDE_MAX
from airunner.broker.store.dynamodb.saving import read_tallies
from airunner.broker.store.rows import BrokerSeen, OutboxEntry
from airunner.protocol.replies import JobCancelled
from airunner.protocol.requests import CancelJob
from tests.broker.store.dynamodb.opened import TABLE, opened
from tests.conformance.driving import Driver
from tests.simulation.dynamodb.client import fake_client

LIFE = ["JOB_SCHEDULED", "JOB_LEASED", "JOB_FINISHED"]


def kinds(entries: list[OutboxEntry]) -> list[str]:
    return [msgspec.msgpack.decode(entry.events)[0]["kind"] for entry in entries]


def stored(engine: DynamoEngine) -> int:
    """Entries in tally buckets."""
    return sum(len(bucket.content.outbox) for bucket in read_tallies(engine.table, "home").buckets)


def test_each_event_of_a_jobs_life_comes_out_with_its_sequence_until_it_is_acknowledged():
    with opened(announces=True) as engine:
        driver = Driver(Store(engine))
        (job_id,) = driver.ended()
        entries = engine.outbox(10)
        assert kinds(entries) == LIFE
        assert [(entry.job_id, entry.queue, entry.first_sequence) for entry in entries] == [
            (job_id, "default", sequence) for sequence in (1, 2, 3)
        ]
        assert engine.outbox(10) == entries, "nobody has said that they are out"
        engine.published(entries[:2])
        assert engine.outbox(10) == entries[2:]
        assert stored(engine) == 3
        driver.submit()
        assert stored(engine) == 2, "the next write of the bucket leaves out what was announced"
        engine.published(engine.outbox(10))
        driver.apply(Beat())
        assert (stored(engine), engine.outbox(10)) == (0, []), "and so does a beat"


def test_events_that_were_written_together_come_out_together():
    with opened(announces=True) as engine:
        driver = Driver(Store(engine))
        (job_id,) = driver.submit("true")
        driver.reply(JobCancelled, CancelJob(job_id=job_id))
        (_, ended) = engine.outbox(10)
        assert [event["kind"] for event in msgspec.msgpack.decode(ended.events)] == [
            "JOB_CANCEL_REQUESTED",
            "JOB_FINISHED",
        ]
        assert ended.first_sequence == 2
        engine.published([ended])
        driver.apply(Beat())
        assert stored(engine) == 1


def test_what_was_not_announced_is_announced_by_the_next_process_or_the_adopter():
    client = fake_client(TABLE)
    with opened(client, announces=True) as engine:
        Driver(Store(engine)).ended()
        engine.published(engine.outbox(1))
    with opened(client, announces=True) as engine:
        driver = Driver(Store(engine))
        driver.apply(RenewAll())
        assert set(LIFE[1:]) <= set(kinds(engine.outbox(10)))
        engine.retire()
        with opened(client, "broker-1", announces=True) as other:
            others = Driver(Store(other))
            (row,) = [row for row in others.apply(Beat()).done[0].news.brokers if row.broker == "broker-0"]
            others.apply(Adopt(BrokerSeen(row.broker, row.epoch, row.beat)))
            assert set(LIFE[1:]) <= set(kinds(other.outbox(10)))


def test_what_cannot_be_announced_for_long_leaves_buckets_and_memory_small_and_comes_out_later():
    client = fake_client(TABLE)
    with opened(client, announces=True) as engine:
        driver = Driver(Store(engine))
        jobs = {job_id for _ in range(8) for job_id in driver.submit(*["true"] * INSIDE_MAX)}
        assert stored(engine) <= INSIDE_MAX
        engine.retire()
    with opened(client, "broker-1", announces=True) as other:
        others = Driver(Store(other))
        (row,) = [row for row in others.apply(Beat()).done[0].news.brokers if row.broker == "broker-0"]
        others.apply(Adopt(BrokerSeen(row.broker, row.epoch, row.beat)))
        found: set[str] = set()
        while entries := other.outbox(50):
            found |= {entry.job_id for entry in entries}
            assert set(kinds(entries)) == {"JOB_SCHEDULED"}
            other.published(entries)
        assert found == jobs
        others.apply(Beat())
        assert stored(other) == 0
        assert not [item for item in client.server.tables[TABLE].items() if item["pk"]["S"].startswith("O#")]


def test_without_a_bus_nothing_is_kept_for_one():
    with opened() as engine:
        Driver(Store(engine)).ended()
        assert (stored(engine), engine.outbox(10)) == (0, [])
