"""An engine that answers only what `Keys` has named: an engine over a network has loaded nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from airunner.broker.store.contract import Waiting
from airunner.broker.store.needs import meets
from airunner.broker.store.rows import (
    Changes,
    JobRow,
    Keys,
    Loaded,
    QueueKey,
    SecretRow,
    Segment,
    Usage,
    Wanted,
)
from tests.conformance.memory import MemoryEngine, Tables


class Announced(MemoryEngine):
    """Fails on each question between `load` and `save`, and on each change, that the keys of the batch do not name."""

    def __init__(self, tables: Tables | None = None) -> None:
        super().__init__(tables)
        self._keys: Keys | None = None
        self._owned: set[str] = set()  # jobs that were loaded

    def load(self, keys: Keys) -> Loaded:
        if keys.now_ms:  # otherwise a page reads a job
            self._keys = keys
        loaded = super().load(keys)
        self._owned = {job.job_id for job in loaded.jobs}
        return loaded

    def waiting(self, wanted: Mapping[QueueKey, int]) -> Waiting:
        keys = self._named()
        for key, jobs in wanted.items():
            most = sum(one.jobs for one in keys.wanted if self._fits_wanted(one, key)) + keys.ended + 2 * keys.due
            assert jobs <= most, f"{jobs} jobs of {key} are asked for, and {most} were named"
        waiting = super().waiting(wanted)
        return waiting._replace(jobs=self._note(waiting.jobs))

    @staticmethod
    def _fits_wanted(one: Wanted, key: QueueKey) -> bool:
        return one[:2] == key[:2] and (one.facts is None or meets(one.facts, key.needs))

    def due(self, now_ms: int, limit: int) -> list[JobRow]:
        assert limit <= self._named().due
        return self._note(super().due(now_ms, limit))

    def finished(self, before_ms: int, limit: int) -> list[JobRow]:
        sweep = self._named().sweep
        assert sweep is not None
        return self._note(super().finished(before_ms, limit))

    def usages(self) -> dict[str, Usage]:
        sweep = self._named().sweep
        assert sweep is not None
        assert sweep.measured
        return super().usages()

    def boxes(self, tenant: str, queue: str) -> dict[str, SecretRow]:
        assert QueueKey(tenant, queue) in self._named().boxes
        return super().boxes(tenant, queue)

    def segments(self, number: int, sequence: int, from_timestamp_ms: int | None = None) -> Iterator[Segment]:
        if self._keys is not None:
            job = self._now.jobs[number]
            assert (job.tenant, job.job_id) in self._keys.retried
        return super().segments(number, sequence, from_timestamp_ms)

    def save(self, changes: Changes) -> None:
        keys = self._named()
        assert len(changes.added) <= keys.new_jobs
        assert {QueueKey(job.tenant, job.queue) for job in changes.added} <= keys.opened
        assert {(record.tenant, record.request_id) for record in changes.records} <= keys.records.keys()
        assert {job.job_id for job, _ in changes.changed} | {job.job_id for job in changes.removed} <= self._owned
        secrets = {(row.tenant, row.queue) for row in changes.secrets} | {row[:2] for row in changes.secrets_removed}
        assert {*changes.modes, *(QueueKey(*key) for key in secrets)} <= keys.updated
        super().save(changes)

    def commit(self) -> None:
        self._keys = None
        super().commit()

    def _named(self) -> Keys:
        assert self._keys is not None, "it is asked outside of a batch"
        return self._keys

    def _note(self, jobs: list[JobRow]) -> list[JobRow]:
        self._owned |= {job.job_id for job in jobs}
        return jobs
