"""The file that the store lives in: private, one broker's alone, of one version, whole after anything."""

from __future__ import annotations

import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import msgspec
import pytest

from airunner.broker.checking import check_store
from airunner.broker.store.batch import Store
from airunner.broker.store.contract import Moved
from airunner.broker.store.open import open_engine
from airunner.broker.store.rows import Changes, JobRow, Keys, Record, Segment, Usage
from airunner.broker.store.sqlite.engine import SqliteEngine
from airunner.broker.store.sqlite.opening import VERSION, open_alone, open_sqlite
from airunner.protocol.errors import EXIT_UNAVAILABLE, NoSpace, OperatorError
from airunner.protocol.fields import JobSpec
from airunner.protocol.replies import JobEventsPublished, JobsEnqueued, JobsListed
from airunner.protocol.requests import EnqueueJob, ListJobs, PublishJobEvents
from tests.conformance.driving import Driver, batch, completion


def test_folder_and_files_are_private(tmp_path: Path):
    path = tmp_path / "new" / "store.db"
    with closing(Store(open_sqlite(path))) as store:
        Driver(store).submit()
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_a_row_is_inserted_without_naming_its_columns_since_the_table_has_them_in_this_order() -> None:
    tables = {"job": JobRow, "segment": Segment, "record": Record}
    with closing(open_sqlite(None)) as engine:
        for table, row in tables.items():
            columns = [name for _, name, *_ in engine._db.execute(f"PRAGMA table_info({table})")]
            assert columns == [*row.__struct_fields__]


def test_a_relative_path_is_taken_from_where_the_broker_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    open_engine("sqlite:///relative.db").close()
    assert (tmp_path / "relative.db").exists()


@pytest.mark.parametrize("url", ["", "sqlite:", "sqlite:///", "postgresql://host/base", "memory", "store.db"])
def test_another_url_is_the_operators_to_mend(url: str):
    with pytest.raises(OperatorError, match="--store"):
        open_engine(url)


@pytest.mark.parametrize(
    ("second", "words"),
    [(open_sqlite, "a broker uses the store"), (open_alone, "stop it first"), (check_store, "stop it first")],
)
def test_whoever_opens_a_store_that_a_broker_has_is_told_so(
    second: Callable[[Path], object], words: str, tmp_path: Path
):
    path = tmp_path / "store.db"
    for _ in range(2):
        with closing(open_sqlite(path)):
            with pytest.raises(OperatorError, match=words) as caught:
                second(path)
            assert caught.value.exit_code == EXIT_UNAVAILABLE


@pytest.mark.parametrize(
    ("version", "words"), [(VERSION - 1, "an earlier airunner"), (VERSION + 1, "a newer airunner"), (0, "not a store")]
)
def test_a_store_of_another_version_is_refused_in_one_line_and_left_alone(version: int, words: str, tmp_path: Path):
    path = tmp_path / "store.db"
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(f"CREATE TABLE job (number); PRAGMA user_version = {version}")
    for _ in range(2):
        with pytest.raises(OperatorError, match=words) as caught:
            open_sqlite(path)
        assert (caught.value.exit_code, "\n" in caught.value.message) == (64, False)
    with closing(apsw.Connection(str(path))) as connection:
        assert connection.pragma("user_version") == version
        assert connection.execute("SELECT name FROM sqlite_schema").get == "job"


def test_what_is_no_database_is_left_alone(tmp_path: Path):
    text = tmp_path / "text"
    text.write_bytes(b"dear diary " * 1_000)
    for path in (text, tmp_path, text / "store.db"):
        with pytest.raises(OperatorError):
            open_sqlite(path)
    assert text.read_bytes() == b"dear diary " * 1_000


def test_everything_is_there_after_opening_again(tmp_path: Path):
    path = tmp_path / "store.db"
    with closing(Store(open_sqlite(path))) as store:
        first = Driver(store)
        job_id, waiting = first.submit("a", "b")
        lease = first.lease_one()
        last = PublishJobEvents(batches=(batch(lease, 0, "x", "y"),), completions=(completion(lease, 2),))
        first.reply(JobEventsPublished, last)
        log = first.log(job_id)
    with closing(Store(open_sqlite(path))) as store:
        again = Driver(store)
        assert again.log(job_id) == log
        assert again.lease_one().job_id == waiting


def test_a_commit_waits_for_the_disk_and_a_statement_is_planned_once_and_not_for_each_value(tmp_path: Path):
    with closing(open_sqlite(tmp_path / "store.db")) as engine:
        settings = ("journal_mode", "synchronous", "foreign_keys", "locking_mode", "user_version")
        assert [engine._db.pragma(setting) for setting in settings] == ["wal", 2, 0, "exclusive", VERSION]
        assert engine._db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, -1) == 1


def test_the_columns_of_a_job_are_the_fields_of_its_row_in_order(engine: SqliteEngine):
    columns = [name for _, name, *_ in engine._db.execute("PRAGMA table_info(job)")]
    assert columns == list(JobRow.__struct_fields__)


def test_a_full_disk_or_a_fault_in_the_middle_leaves_nothing_of_the_batch_and_the_store_goes_on(
    engine: SqliteEngine, driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    driver.submit("before")
    engine._db.pragma("max_page_count", engine._db.pragma("page_count"))
    big = EnqueueJob(jobs=(JobSpec(command="x" * 60_000),))
    with pytest.raises(NoSpace):
        driver.apply(driver.ask(EnqueueJob(jobs=(JobSpec(command="small"),))), driver.ask(big))
    engine._db.pragma("max_page_count", 1_000_000)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "next_due_ms", lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            driver.submit("good")
    driver.reply(JobsEnqueued, big)
    assert [job.command[:6] for job in driver.reply(JobsListed, ListJobs()).jobs] == ["xxxxxx", "before"]


def test_a_job_that_was_changed_since_it_was_loaded_is_moved_and_nothing_is_stored():
    with closing(open_sqlite(None)) as engine:
        (job_id,) = Driver(Store(engine)).submit()
        keys = Keys(jobs={("home", job_id)})
        (loaded,) = engine.load(keys).jobs
        for agent in ("first", "second"):
            engine.begin()
            changed = msgspec.structs.replace(loaded, agent=agent, attempt=1)
            changes = Changes(changed=[(loaded, changed)], usage={"home": Usage(7, 0)})
            if agent == "first":
                engine.save(changes)
                engine.commit()
                usages = engine.usages()
        with pytest.raises(Moved):
            engine.save(changes)
        assert engine.load(keys).jobs[0].agent == "first"
        assert engine.usages() == usages
