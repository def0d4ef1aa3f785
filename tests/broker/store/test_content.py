"""The content of a store is copied to another one and is the same there; each difference is found."""

from __future__ import annotations

from contextlib import closing
from itertools import islice

import pytest
from msgspec.structs import replace

from airunner.broker.store import content
from airunner.broker.store.batch import Store
from airunner.broker.store.content import Mode, Row, chunks, difference, keys_of, read_rows
from airunner.broker.store.contract import Engine
from airunner.broker.store.rows import JobRow, Record, SecretRow, Segment
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import open_sqlite
from airunner.protocol.fields import JobSpec
from airunner.protocol.replies import QueueMode
from airunner.protocol.requests import EnqueueJobWithStdin, SetSecret
from tests.conformance import counters
from tests.conformance.driving import START_MS, Driver, batch
from tests.conformance.machine import StoreAndModel

pytestmark = pytest.mark.unmeasured


def copy(rows: list[Row], target: Engine) -> None:
    for changes in chunks(rows, target.broker):
        target.begin()
        target.load(keys_of(changes, START_MS))
        target.save(changes)
        target.commit()


def filled(engine: SqliteEngine) -> None:
    """Some of each kind of row: two tenants, a log of two attempts, a standard input, a mode and secrets."""
    driver = Driver(Store(engine))
    driver.submit("waits", queue="one", tenant="another")
    driver.enqueue(JobSpec(command="needs", require={"os": "plan9"}, metadata={"a": "b", "c": "d"}))
    driver.reply(object, EnqueueJobWithStdin(job=JobSpec(command="reads", stdin_bytes=3), stdin=b"abc"))
    driver.ended("ends")
    lease = driver.started()
    driver.publish(batch(lease, 0, "x" * 1_000, "y"))
    driver.set_mode(QueueMode.PAUSED, "two")
    for name in ("A", "B"):
        driver.reply(object, SetSecret(queue="two", name=name, box=name.encode() * 100))


@pytest.mark.parametrize("chunk_rows", [1, 7, content.CHUNK_ROWS])
@pytest.mark.parametrize("seed", range(8))
def test_a_copy_of_any_store_is_the_same_and_counts_right(
    seed: int, chunk_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "CHUNK_ROWS", chunk_rows)
    monkeypatch.setattr(content, "PAGE_ROWS", chunk_rows)
    with closing(open_sqlite(None)) as source, closing(open_sqlite(None)) as target:
        StoreAndModel(Store(source), seed).run()
        copy(list(read_rows(source)), target)
        compared: list[Row] = []
        assert difference(source, target, compared.append) == ""
        assert compared == list(read_rows(source))
        counters.require_right(target)


def test_a_copied_store_goes_on_where_the_other_was_left() -> None:
    with closing(open_sqlite(None)) as source, closing(open_sqlite(None)) as target:
        filled(source)
        copy(list(read_rows(source)), target)
        before, after = (Driver(Store(engine)) for engine in (source, target))
        before._drawn = after._drawn = 1_000  # other ids than those that are stored
        assert before.submit("next") == after.submit("next")
        assert [lease.job_id for lease in before.lease()] == [lease.job_id for lease in after.lease()]
        assert before.job("job-00000001", tenant="another") == after.job("job-00000001", tenant="another")


CHANGED = {
    JobRow: lambda row: replace(row, priority=row.priority + 1),
    Segment: lambda row: replace(row, events=row.events[:-1] + b"!"),
    Record: lambda row: replace(row, answered_ms=0),
    SecretRow: lambda row: replace(row, box=b"other"),
    Mode: lambda row: row._replace(mode=QueueMode.DRAINING),
}


@pytest.mark.parametrize("kind", CHANGED, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("how", ["is not the same in the copy", "is not in the copy", "is in the copy only"])
def test_each_difference_of_a_row_is_found(kind: type[Row], how: str) -> None:
    with closing(open_sqlite(None)) as source, closing(open_sqlite(None)) as target:
        filled(source)
        rows = list(read_rows(source))
        at = max(number for number, row in enumerate(rows) if isinstance(row, kind))
        others = [CHANGED[kind](rows[at])] if "not the same" in how else []
        copy([*rows[:at], *others, *rows[at + 1 :]], target)
        found = difference(target, source, id) if "only" in how else difference(source, target, id)
        assert found
        assert kind is not Mode or found.endswith(how), "the last row; in the place of another stands the next one"


def test_counters_that_are_not_those_of_the_content_are_found() -> None:
    for statement in (
        "UPDATE queue SET size_bytes = 1 WHERE name = ''",
        "UPDATE queue SET waiting = 9 WHERE name = 'one'",
    ):
        with closing(open_sqlite(None)) as source, closing(open_sqlite(None)) as target:
            filled(source)
            copy(list(read_rows(source)), target)
            target._db.execute(statement)
            assert "does not count" in difference(source, target, id)


def test_rows_are_read_lazily() -> None:
    with closing(open_sqlite(None)) as source:
        filled(source)
        assert len(list(islice(read_rows(source), 2))) == 2
