"""Copies of a store: whole or not there, compared, and refused in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from airunner.__main__ import run
from airunner.broker import storecopy
from airunner.broker.checking import check_store
from airunner.broker.store.batch import Store
from airunner.broker.store.content import Row
from airunner.broker.store.contract import Identity
from airunner.broker.store.rows import Segment
from airunner.broker.store.sqlite.opening import open_sqlite
from airunner.broker.storecopy import CopyProgress, copy_store
from airunner.protocol.errors import NoSpace, OperatorError
from tests.conformance.driving import Driver
from tests.conformance.machine import StoreAndModel


def no_identity() -> Identity:
    raise AssertionError("a file has no broker's row")


@pytest.fixture
def source(tmp_path: Path) -> str:
    """URL of a store with something of each kind."""
    with closing(open_sqlite(tmp_path / "source.db")) as engine:
        StoreAndModel(Store(engine), seed=3).run()
    return f"sqlite:///{tmp_path}/source.db"


def test_a_copy_is_sound_shows_its_progress_and_can_be_copied_back(source: str, tmp_path: Path) -> None:
    shown: list[CopyProgress] = []
    reports = [
        copy_store(source, f"sqlite:///{tmp_path}/new/copy.db", no_identity, shown.append),
        copy_store(f"sqlite:///{tmp_path}/new/copy.db", f"sqlite:///{tmp_path}/back.db", no_identity, shown.append),
    ]
    assert reports[0] == reports[1]
    assert reports[0].jobs == check_store(tmp_path / "new" / "copy.db").jobs > 0
    copied = [progress.jobs for progress in shown if progress.doing == "copied"]
    assert copied == [*range(1, reports[0].jobs + 1)] * 2
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["copy.db"]


def spoiled(rows: Callable[..., Iterator[Row]]) -> Callable[..., Iterator[Row]]:
    """Rows of which one byte of a log is another."""

    def read(*engine: object) -> Iterator[Row]:
        for row in rows(*engine):
            yield replace(row, events=row.events[:-1] + b"?") if isinstance(row, Segment) else row

    return read


def no_space(*_: object) -> Iterator[Row]:
    raise NoSpace


def interrupted(*_: object) -> Iterator[Row]:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("rows", "raised"),
    [(spoiled(storecopy.read_rows), "is not the same"), (no_space, "no space"), (interrupted, None)],
    ids=["another-byte", "no-space", "interrupted"],
)
def test_of_a_copy_that_is_not_whole_nothing_is_left(
    source: str, rows: Callable[..., Iterator[Row]], raised: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storecopy, "read_rows", rows)
    with pytest.raises(OperatorError if raised else KeyboardInterrupt, match=raised):
        copy_store(source, f"sqlite:///{tmp_path}/copy.db", no_identity, id)
    assert [path.name for path in tmp_path.iterdir()] == ["source.db"]


@pytest.mark.parametrize("words", [["backup", "copy.db"], ["store", "restore", "copy.db"]])
def test_the_backup_of_a_database_is_its_servers(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, "--store", "postgresql://user:password@host/database"]) == 64
    said = "a store on PostgreSQL is backed up with pg_dump and restored with pg_restore"
    assert capsys.readouterr().err == f"airunner: {said}\n"


def test_what_cannot_be_copied_is_told_in_a_line(source: str, tmp_path: Path) -> None:
    there = f"sqlite:///{tmp_path}/there.db"
    with closing(open_sqlite(tmp_path / "there.db")) as engine:
        Driver(Store(engine)).submit()
        for urls, words in [
            ((source, there), "exists already"),
            ((there, source), "a broker uses the store"),
            ((source, "memory:"), "lost at once"),
            (("memory:", there), "cannot be copied"),
            ((f"sqlite:///{tmp_path}/none.db", there), "there is no store"),
            ((source, "sqlite:////proc/none/copy.db"), "cannot write"),
        ]:
            with pytest.raises(OperatorError, match=words) as caught:
                copy_store(*urls, no_identity, id)
            assert "\n" not in caught.value.message
    with closing(open_sqlite(tmp_path / "source.db")) as engine:
        engine._db.execute("DELETE FROM segment WHERE first_sequence > 1")
    with pytest.raises(OperatorError, match=r"has a fault and is not copied: job .+: its log"):
        copy_store(source, f"sqlite:///{tmp_path}/copy.db", no_identity, id)
