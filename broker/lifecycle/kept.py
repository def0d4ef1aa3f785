"""Rows kept between two batches, so that the next batch need not load them: running jobs, queues, the next due instant.

Only the rows of a store that one broker writes alone (`Engine.alone`) are kept: no other can have changed them since.
What a batch changes is kept once it is committed. If a batch fails, all is forgotten, and loaded again when needed.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from airunner.broker.store.rows import Changes, JobRow, Keys, Loaded, QueueKey
from airunner.protocol.job import JobState
from airunner.protocol.replies import QueueMode

JOBS_MAX: Final = 8_192  # running jobs kept, without specs: some 1 KB each; the one that was leased first goes first
DEPENDENTS_BYTES_MAX: Final = 1_024  # of a running job that is kept
QUEUES_MAX: Final = 4_096  # queues kept; if there are more, all are forgotten


class _Rows(Struct):
    """Rows that are kept."""

    due_ms: int | None = None  # valid if `knows_due`; see `KeptRows`
    knows_due: bool = False
    jobs: dict[str, JobRow] = {}  # running jobs, by id, without specs
    modes: dict[QueueKey, QueueMode | None] = {}  # by queue; None: the queue is not stored
    kinds: dict[QueueKey, dict[QueueKey, int]] = {}  # by queue: how many of its jobs have which needs


class KeptRows:
    """Cache of rows: `begin`, `save` and `commit` follow the engine's; `find` and `add` stand around its `load`."""

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self._committed = _Rows()
        self._batch = _Rows()  # those of the batch that has begun
        self._whole: list[JobRow] = []  # kept jobs of the last batch, with their specs

    def begin(self) -> None:
        """Begin a batch: it changes the committed rows, so until its `commit` there are none to fall back on.

        The jobs of the last one lose their specs only now: until then its news may need them.
        """
        for job in self._whole:
            job.spec = b""
        self._whole.clear()
        self._batch, self._committed = self._committed, _Rows()

    def commit(self) -> None:
        """Keep the rows of the batch."""
        self._committed, self._batch = self._batch, self._committed

    def forget(self) -> None:
        """Forget all rows: the engine has changed them by itself."""
        self._batch = _Rows()

    def find(self, keys: Keys) -> Loaded:
        """Find what is kept, and remove its keys from `keys`."""
        rows, found = self._batch, Loaded()
        if rows.jobs:
            jobs = [(named, rows.jobs.get(named[1])) for named in keys.jobs - keys.specs]
            found.jobs = [job for (tenant, _), job in jobs if job is not None and job.tenant == tenant]
            keys.jobs.difference_update([(job.tenant, job.job_id) for job in found.jobs])
        for queue in [queue for queue in keys.queues if queue in rows.modes]:
            keys.queues.discard(queue)
            if (mode := rows.modes[queue]) is not None:
                found.modes[queue] = mode
        for queue in [queue for queue in keys.kinds if queue in rows.kinds]:
            keys.kinds.discard(queue)
            found.kinds |= rows.kinds[queue]
        return found

    def add(self, keys: Keys, loaded: Loaded, found: Loaded) -> None:
        """Keep the queues that were loaded for `keys`, and add what was `found` to `loaded`."""
        rows = self._batch
        if len(rows.modes) > QUEUES_MAX or len(rows.kinds) > QUEUES_MAX:
            rows.modes, rows.kinds = {}, {}
        for queue in keys.queues:
            rows.modes[queue] = loaded.modes.get(queue)
        if keys.kinds:
            rows.kinds.update((queue, {}) for queue in keys.kinds)
            for key, jobs in loaded.kinds.items():
                rows.kinds[key._replace(needs="")][key] = jobs
        if found.jobs:
            granted = {job.job_id for job in loaded.jobs}
            loaded.jobs += [job for job in found.jobs if job.job_id not in granted]
        loaded.modes |= found.modes
        loaded.kinds |= found.kinds

    @property
    def knows_due(self) -> bool:
        """Whether `due_ms` is known."""
        return self._batch.knows_due

    @property
    def due_ms(self) -> int | None:
        """Earliest end of a lease or delay, as `Engine.next_due_ms` finds it."""
        return self._batch.due_ms

    def set_due(self, due_ms: int | None) -> None:
        """Set `due_ms`, as the engine has found it."""
        self._batch.due_ms, self._batch.knows_due = due_ms, True

    def save(self, changes: Changes) -> None:
        """Keep the jobs that run after these changes; forget those that have ended, and queues that have changed.

        The rows in `changes` are kept themselves, not copied: the engine has saved them before.
        """
        if not self._alone:
            self.forget()
            return
        rows = self._batch
        self._save_due(changes)
        for _, job in changes.changed:
            if job.state == JobState.RUNNING and (not job.dependents or len(job.dependents) <= DEPENDENTS_BYTES_MAX):
                self._whole.append(job)
                rows.jobs[job.job_id] = job
            else:
                rows.jobs.pop(job.job_id, None)
        while len(rows.jobs) > JOBS_MAX:
            del rows.jobs[next(iter(rows.jobs))]
        for queue in changes.counts:  # the engine has stored each of these, open if it was not there
            if rows.modes.get(queue, QueueMode.OPEN) is None:
                rows.modes[queue] = QueueMode.OPEN
        for queue in (*changes.modes, *(job.key._replace(needs="") for job in changes.removed)):
            rows.modes.pop(queue, None)
        for key in changes.kinds:
            rows.kinds.pop(key._replace(needs=""), None)

    def _save_due(self, changes: Changes) -> None:
        """Bring `due_ms` up to date; it is not known any more if the job that was due first has changed."""
        rows = self._batch
        instants = [at for row in changes.added for at in (row.deadline_ms, row.due_ms) if at is not None]
        for before, after in changes.changed:
            for was, now in ((before.deadline_ms, after.deadline_ms), (before.due_ms, after.due_ms)):
                if was != now:
                    rows.knows_due &= was is None or was != rows.due_ms
                    if now is not None:
                        instants.append(now)
        if instants:
            rows.due_ms = min(instants) if rows.due_ms is None else min(rows.due_ms, *instants)
