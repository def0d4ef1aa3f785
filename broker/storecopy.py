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
from airunner.broker.checking import StoreReport, check_store
from airunner.broker.store.content import ReadableEngine, Row, chunks, difference, keys_of, read_rows
from airunner.broker.store.contract import Moved
from airunner.broker.store.open import path_of
from airunner.broker.store.rows import JobRow
from airunner.broker.store.sqlite.opening import open_alone, open_sqlite
from airunner.certs.secretfile import sync_folder
from airunner.protocol.errors import CorruptLog, NoSpace, OperatorError


class CopyProgress(NamedTuple):
    """Progress of a copy: how many of the source's jobs were copied or compared."""

    doing: str
    jobs: int
    jobs_max: int


OnProgress = Callable[[CopyProgress], None]
"""Progress callback of a copy."""


class CopyReport(NamedTuple):
    """Report of a copy: how much both stores have of each."""

    jobs: int
    events: int
    records: int
    secrets: int
    modes: int


def copy_store(source: str, target: str, now_ms: int, on_progress: OnProgress) -> CopyReport:
    """Copy the store at one URL into a new store at another, and compare both.

    Raises `OperatorError`: the source has a fault or is in use, the target is not empty, the copy is not the same.
    """
    with _source(source) as (original, report), _target(target) as copy:
        try:
            copied = _Counted("copied", report.jobs, on_progress)
            for changes in chunks(map(copied.add, read_rows(original)), copy.broker):
                copy.begin()
                copy.load(keys_of(changes, now_ms))
                copy.save(changes)
                copy.commit()
            compared = _Counted("compared", report.jobs, on_progress)
            different = difference(original, copy, compared.add)
        except NoSpace as error:
            raise OperatorError(f"no space is left for {target}: make room, and copy again", exit_code=1) from error
        except (CorruptLog, Moved) as error:
            raise OperatorError(f"{source} or {target} was changed meanwhile: copy again", exit_code=1) from error
        if different:
            raise OperatorError(f"the copy is not used: {different}", exit_code=1)
    kinds = compared.kinds
    return CopyReport(report.jobs, report.events, kinds["Record"], kinds["SecretRow"], kinds["Mode"])


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
def _source(url: str) -> Generator[tuple[ReadableEngine, StoreReport]]:
    """Open and check the store to copy. Raises `OperatorError`: it has a fault, or a broker uses it."""
    if (path := path_of(url)) is None:
        raise OperatorError("a store in memory cannot be copied; name a store's file with sqlite:///PATH")
    report = check_store(path)
    if report.faults:
        job_id, words = report.faults[0]
        whose = f"job {job_id}: " if job_id else ""
        raise OperatorError(f"{path} has a fault and is not copied: {whose}{words}", exit_code=1)
    with closing(open_alone(path)) as engine:
        yield engine, report


@contextmanager
def _target(url: str) -> Generator[ReadableEngine]:
    """Make an empty store; it may be used once this block has ended without an error. Raises `OperatorError`."""
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
