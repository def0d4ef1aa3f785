"""The file that the store lives in: private, one broker's alone, whole after anything."""

from __future__ import annotations

import stat
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from airunner.broker.store.sqlite.schema import MIGRATIONS
from airunner.broker.store.sqlite.store import open_store
from airunner.protocol.errors import EXIT_UNAVAILABLE, NoSpace, OperatorError
from airunner.protocol.job import JobSpec
from airunner.protocol.messages import (
    EnqueueJob,
    JobEventsPublished,
    JobsEnqueued,
    JobsListed,
    ListJobs,
    PublishJobEvents,
)
from tests.conformance.driving import Driver, batch, completion


def _url(path: Path) -> str:
    return f"sqlite:///{path}"


def test_folder_and_files_are_private(tmp_path: Path):
    path = tmp_path / "new" / "store.db"
    with closing(open_store(_url(path))) as store:
        Driver(store).submit()
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_a_relative_path_is_taken_from_where_the_broker_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    open_store("sqlite:///relative.db").close()
    assert (tmp_path / "relative.db").exists()


@pytest.mark.parametrize("url", ["", "sqlite:", "sqlite:///", "postgresql://host/base", "memory", "store.db"])
def test_another_url_is_the_operators_to_mend(url: str):
    with pytest.raises(OperatorError, match="--store"):
        open_store(url)


def test_a_second_broker_is_told_so(tmp_path: Path):
    url = _url(tmp_path / "store.db")
    with closing(open_store(url)):
        with pytest.raises(OperatorError, match="another broker") as caught:
            open_store(url)
        assert caught.value.exit_code == EXIT_UNAVAILABLE
    open_store(url).close()
    with closing(open_store(url)), pytest.raises(OperatorError, match="another broker"):
        open_store(url)


def test_what_is_no_store_is_left_alone(tmp_path: Path):
    text, foreign, newer = tmp_path / "text", tmp_path / "foreign", tmp_path / "newer"
    text.write_bytes(b"dear diary " * 1_000)
    for path, sql in ((foreign, "CREATE TABLE job (x)"), (newer, f"PRAGMA user_version = {len(MIGRATIONS) + 1}")):
        with closing(apsw.Connection(str(path))) as connection:
            connection.execute(sql)
    for path in (text, foreign, newer, tmp_path, text / "store.db"):
        with pytest.raises(OperatorError):
            open_store(_url(path))
    assert text.read_bytes() == b"dear diary " * 1_000


def test_everything_is_there_after_opening_again(tmp_path: Path):
    url = _url(tmp_path / "store.db")
    with closing(open_store(url)) as store:
        first = Driver(store)
        job_id, waiting = first.submit("a", "b")
        lease = first.lease_one()
        last = PublishJobEvents(batches=(batch(lease, 0, "x", "y"),), completions=(completion(lease, 2),))
        first.reply(JobEventsPublished, last)
        log = first.log(job_id)
    with closing(open_store(url)) as store:
        again = Driver(store)
        assert again.log(job_id) == log
        assert again.lease_one().job_id == waiting


def test_a_commit_waits_for_the_disk(tmp_path: Path):
    with closing(open_store(_url(tmp_path / "store.db"))) as store:
        connection = store._connection
        assert connection.pragma("journal_mode") == "wal"
        assert connection.pragma("synchronous") == 2
        assert connection.pragma("foreign_keys") == 0
        assert connection.pragma("locking_mode") == "exclusive"
        assert connection.pragma("user_version") == len(MIGRATIONS)


def test_a_statement_is_planned_once_and_not_for_each_value():
    with closing(open_store("memory:")) as store:
        assert store._connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, -1) == 1


def test_a_full_disk_stores_nothing_of_the_batch_and_the_store_goes_on(tmp_path: Path):
    with closing(open_store(_url(tmp_path / "store.db"))) as store:
        driver = Driver(store)
        driver.submit("before")
        pages = store._connection.pragma("page_count")
        store._connection.pragma("max_page_count", pages)
        big = EnqueueJob(jobs=(JobSpec(command="x" * 60_000),))
        with pytest.raises(NoSpace):
            driver.apply(driver.ask(EnqueueJob(jobs=(JobSpec(command="small"),))), driver.ask(big))
        assert [job.command for job in driver.reply(JobsListed, ListJobs()).jobs] == ["before"]
        store._connection.pragma("max_page_count", 1_000_000)
        driver.reply(JobsEnqueued, big)


def test_a_fault_in_the_middle_leaves_nothing_of_the_batch():
    with closing(open_store("memory:")) as store:
        driver = Driver(store)
        driver.submit("before")
        good = driver.ask(EnqueueJob(jobs=(JobSpec(command="good"),)))
        with pytest.raises(apsw.ConstraintError):
            driver.apply(good, driver.ask(good.request), *_same_job_id(driver, good))
        assert [job.command for job in driver.reply(JobsListed, ListJobs()).jobs] == ["before"]


def _same_job_id(driver: Driver, ask):
    return [type(ask)(tenant="home", request_id=driver.draw(16), request=ask.request, minted=ask.minted)]
