"""Copies into PostgreSQL and back: the same rows, right counters, refused in words, and never used in part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from airunner.broker import storecopy
from airunner.broker.lifecycle.commands import Adopt, Beat
from airunner.broker.store.batch import Store
from airunner.broker.store.content import Row, read_rows
from airunner.broker.store.contract import Identity
from airunner.broker.store.postgres import pages
from airunner.broker.store.postgres.copying import open_content
from airunner.broker.store.postgres.engine import PostgresEngine, open_postgres
from airunner.broker.store.rows import BrokerSeen
from airunner.broker.store.sqlite.opening import open_sqlite
from airunner.broker.storecopy import copy_store
from airunner.protocol.errors import OperatorError
from airunner.protocol.job import JobState
from airunner.protocol.replies import JobCompleted, QueueMode, Verdict
from airunner.transport.ports import SYSTEM
from tests.conformance import counters
from tests.conformance.driving import START_MS, VISIBILITY_MS, Driver, batch, completion
from tests.conformance.machine import StoreAndModel
from tests.postgresql.serving import ONE_VERSION

pytestmark = pytest.mark.timeout(60)  # a store is copied there and back, in small pieces
COPY = Identity(broker="copy", fleet="fleet", requests="", events="")
OTHER = Identity(broker="copy", fleet="other", requests="", events="")
BROKER = Identity(broker="broker", fleet="fleet", requests="tcp://a:1", events="tcp://a:2")


def opened(url: str, identity: Identity = BROKER) -> PostgresEngine:
    return open_postgres(url, identity, SYSTEM.wall_ms)


@pytest.fixture
def source(tmp_path: Path) -> str:
    with closing(open_sqlite(tmp_path / "source.db")) as engine:
        StoreAndModel(Store(engine), seed=3).run()
    return f"sqlite:///{tmp_path}/source.db"


@pytest.mark.parametrize("rows", [1, 3, pages.PIECE_SEGMENTS])
def test_a_store_is_moved_to_postgresql_and_back(
    rows: int, source: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PIECE_SEGMENTS", rows)  # of a log in a round trip
    monkeypatch.setattr(pages, "PIECE_BYTES", 100 * rows)
    urls = [source, database, f"sqlite:///{tmp_path}/back.db"]
    there, back = (copy_store(*pair, lambda: COPY, id) for pair in pairwise(urls))
    assert there == back
    assert there.jobs > 0
    with closing(open_sqlite(tmp_path / "back.db")) as engine:
        counters.require_right(engine)


def test_a_lease_outlives_the_move_and_new_jobs_come_after_the_others(database: str, tmp_path: Path) -> None:
    with closing(open_sqlite(tmp_path / "source.db")) as engine:
        driver = Driver(Store(engine))
        lease = driver.started()
        driver.publish(batch(lease, 0, "before"))
        (waiting,) = driver.submit()
        driver.set_mode(QueueMode.PAUSED, "paused")
    copy_store(f"sqlite:///{tmp_path}/source.db", database, lambda: COPY, id)
    with closing(opened(database)) as engine:
        driver.store = Store(engine)
        driver.now_ms = 10 * START_MS  # of another clock
        (beat,) = driver.apply(Beat()).done
        (copied,) = [row for row in beat.news.brokers if row.broker == COPY.broker]
        assert copied.dead
        assert copied.leases
        driver.apply(Adopt(BrokerSeen(copied.broker, copied.epoch, copied.beat)))
        assert driver.pass_ms(VISIBILITY_MS - 1).news.appended == [], "it has a full period from then on"
        assert driver.verdict(lease) is Verdict.KEPT
        assert driver.publish(batch(lease, 1, "after")) == [(2, None)]
        driver.reply(JobCompleted, completion(lease, 2))
        (new,) = driver.submit()
        assert [found.job_id for found in driver.lease(slots=2)] == [waiting, new]


def cut(rows: Callable[..., Iterator[Row]], raised: BaseException) -> Callable[..., Iterator[Row]]:
    """Half of the rows, and then an error."""

    def read(*engine: object) -> Iterator[Row]:
        found = list(rows(*engine))
        yield from found[: len(found) // 2]
        raise raised

    return read


@ONE_VERSION
@pytest.mark.parametrize("raised", [KeyboardInterrupt(), OperatorError("the server is gone")], ids=["ctrl-c", "away"])
def test_a_copy_that_was_interrupted_is_used_by_nobody(
    source: str, database: str, raised: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(storecopy, "read_rows", cut(read_rows, raised))
        patched.setattr("airunner.broker.store.content.CHUNK_ROWS", 10)
        with pytest.raises(type(raised)):
            copy_store(source, database, lambda: COPY, id)
    for use in (lambda: opened(database), lambda: copy_store(source, database, lambda: COPY, id)):
        with pytest.raises(OperatorError, match=r"a copy that was interrupted, .+ DROP SCHEMA airunner CASCADE"):
            use()
    with pytest.raises(OperatorError, match="interrupted"), open_content(database, unused=False):
        pass


@ONE_VERSION
def test_what_is_in_use_or_not_empty_is_refused_in_words_and_left_alone(
    source: str, database: str, tmp_path: Path
) -> None:
    back = f"sqlite:///{tmp_path}/back.db"
    with closing(opened(database)) as engine:
        for urls in ((source, database), (database, back)):
            with pytest.raises(OperatorError, match=r"brokers use the store .+: broker; stop them"):
                copy_store(*urls, lambda: COPY, id)
        driver = Driver(Store(engine))
        driver.now_ms = SYSTEM.wall_ms()
        (job_id,) = driver.submit()
        engine.retire()
    with pytest.raises(OperatorError, match="is not empty: name another database"):
        copy_store(source, database, lambda: COPY, id)
    with pytest.raises(OperatorError, match="belongs to another fleet"):
        copy_store(source, database, lambda: OTHER, id)
    assert copy_store(database, back, lambda: COPY, id).jobs == 1
    with closing(opened(database)) as engine:
        driver.store = Store(engine)
        assert driver.state(job_id) is JobState.SCHEDULED
