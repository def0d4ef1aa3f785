"""Copy of a store into another one, of any engine: `airunner store copy`.

```
 check the source ─► make the target ─► copy ─► compare ─► the target may be used
```

A copy is never used in part: a file gets its name at the end; a PostgreSQL schema is marked until then, and no broker
opens it. Leases belong to the broker that made the copy, which is gone: brokers that start on the copy adopt them, each
with a full visibility period.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from typing import NamedTuple

from airunner.broker.backup import partial_file
from airunner.broker.checking import StoreReport, check_logs
from airunner.broker.identity import ID_BYTES, fleet_of
from airunner.broker.store.content import ReadableEngine, Row, chunks, difference, keys_of, read_rows
from airunner.broker.store.contract import Identity, Moved
from airunner.broker.store.open import is_postgres, path_of, require_psycopg
from airunner.broker.store.rows import JobRow
from airunner.broker.store.sqlite.opening import open_alone, open_sqlite
from airunner.certs.curve import load_broker_pair
from airunner.certs.home import Home
from airunner.certs.secretfile import sync_folder
from airunner.protocol.errors import EXIT_IO, EXIT_WRONG_STATE, CorruptLog, NoSpace, OperatorError
from airunner.transport.ports import SYSTEM


class CopyProgress(NamedTuple):
    """Progress of a copy: how many of the source's jobs were copied or compared."""

    doing: str
    jobs: int
    jobs_max: int


OnProgress = Callable[[CopyProgress], object]
"""Progress callback of a copy."""


class CopyReport(NamedTuple):
    """Report of a copy: how much both stores have of each."""

    jobs: int
    events: int
    records: int
    secrets: int
    modes: int


def identity_of_copy(home: Home) -> Identity:
    """Make the identity of a broker under which a database is filled, for the fleet of this home's broker key.

    Raises `OperatorError`: the home has no broker key.
    """
    broker = SYSTEM.random_bytes(ID_BYTES).hex()
    return Identity(broker=broker, fleet=fleet_of(load_broker_pair(home).public), requests="", events="")


def copy_store(source: str, target: str, identity: Callable[[], Identity], on_progress: OnProgress) -> CopyReport:
    """Copy the store at one URL into a new store at another, and compare both.

    `identity`: makes that of a new broker, under which a database is filled.

    Raises `OperatorError`: the source has a fault or is in use, the target is not empty, the copy is not the same.
    """
    with _source(source) as original, _target(target, identity) as copy, original.reading():
        try:
            report = check_logs(original)
            _require_sound(report)
            copied = _Counted("copied", report.jobs, on_progress)
            for changes in chunks(map(copied.add, read_rows(original)), copy.broker):
                copy.begin()
                copy.load(keys_of(changes, SYSTEM.wall_ms()))
                copy.save(changes)
                copy.commit()
            compared = _Counted("compared", report.jobs, on_progress)
            with copy.reading():
                different = difference(original, copy, compared.add)
        except NoSpace as error:
            raise OperatorError("no space is left for the copy: make room, and copy again") from error
        except (CorruptLog, Moved) as error:
            message = "the store was changed while it was copied: copy again"
            raise OperatorError(message, exit_code=EXIT_WRONG_STATE) from error
        if different:
            raise OperatorError(f"the copy is not used: {different}", exit_code=EXIT_IO)
    kinds = compared.kinds
    return CopyReport(report.jobs, report.events, kinds["Record"], kinds["SecretRow"], kinds["Mode"])


def _require_sound(report: StoreReport) -> None:
    """Require a store without a fault. Raises `OperatorError`."""
    if report.faults:
        job_id, words = report.faults[0]
        whose = f"job {job_id}: " if job_id else ""
        raise OperatorError(f"the store has a fault and is not copied: {whose}{words}", exit_code=EXIT_IO)


class _Counted:
    """Counter of rows that pass through `add`, by kind; shows each job as progress."""

    def __init__(self, doing: str, jobs_max: int, on_progress: OnProgress) -> None:
        self.kinds: Counter[str] = Counter()
        self._doing = doing
        self._jobs_max = jobs_max
        self._on_progress = on_progress

    def add(self, row: Row) -> Row:
        self.kinds[type(row).__name__] += 1
        if isinstance(row, JobRow):
            self._on_progress(CopyProgress(self._doing, self.kinds[JobRow.__name__], self._jobs_max))
        return row


@contextmanager
def _source(url: str) -> Generator[ReadableEngine]:
    """Open the store to copy. Raises `OperatorError`: a broker uses it, SQLite finds a fault in the file."""
    if is_postgres(url):
        require_psycopg()
        from airunner.broker.store.postgres.copying import open_content

        with open_content(url, unused=True) as engine:
            yield engine
        return
    if (path := path_of(url)) is None:
        raise OperatorError("a store in memory cannot be copied; name a store's file with sqlite:///PATH")
    with closing(open_alone(path)) as engine:
        if faults := engine.faults(1):
            raise OperatorError(f"{path} has a fault and is not copied: SQLite: {faults[0]}", exit_code=EXIT_IO)
        yield engine


@contextmanager
def _target(url: str, identity: Callable[[], Identity]) -> Generator[ReadableEngine]:
    """Make an empty store; it may be used once this block has ended without an error. Raises `OperatorError`."""
    if is_postgres(url):
        require_psycopg()
        from airunner.broker.store.postgres.copying import fill

        with fill(url, identity(), SYSTEM.wall_ms) as engine:
            yield engine
        return
    if (path := path_of(url)) is None:
        raise OperatorError("a copy in memory would be lost at once; name a file with sqlite:///PATH")
    if os.path.lexists(path):
        raise OperatorError(f"{path} exists already: name another file")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"cannot write {path}: {error.strerror}") from error
    with partial_file(path) as (partial, _):
        with closing(open_sqlite(partial)) as engine:
            yield engine
        partial.replace(path)
        sync_folder(path.parent)
