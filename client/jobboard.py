"""Job board: the newest jobs that match some filters, kept current by the changes that the broker publishes. Pure.

A change that is older than what the board has is ignored: a list may have overtaken it. A job is first RUNNING in an
attempt, may then wait again, and ends; so attempt and state tell which of two views is newer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from msgspec.structs import replace

from airunner.client.filters import JobFilters
from airunner.protocol.changes import JobChange
from airunner.protocol.job import JobState, JobSummary, JobView

_COURSE = tuple(name for name in JobView.__struct_fields__ if name not in ("id", "submitted_ms", "waited_ms"))
_SHOWN = JobSummary.__struct_fields__


class JobBoard:
    """Job board of up to `limit` jobs, newest first."""

    def __init__(self, limit: int, **filters: Unpack[JobFilters]) -> None:
        self.jobs: list[JobSummary] = []
        self._limit = limit
        self._states = _states(filters)
        self._texts = {name: filters.get(name) for name in ("queue", "name", "owner")}
        self._metadata = (filters.get("metadata") or {}).items()
        self._details = bool(filters.get("details"))
        self._changed: dict[str, JobSummary] = {}

    def replace(self, jobs: Sequence[JobSummary]) -> None:
        """Replace all jobs by a list of the broker's."""
        known = {job.id: job for job in self.jobs}
        self.jobs = list(jobs)
        for job in reversed(self.jobs):
            if known.get(job.id) != job:
                self._changed[job.id] = job

    def apply(self, change: JobChange) -> bool:
        """Apply a change; False: the board cannot tell which jobs it has then, and a list is to be read."""
        known = next((job for job in self.jobs if job.id == change.id), None)
        if known is not None and _age(change) < _age(known):
            return True
        if known is None and (self._is_older(change) or not self._may_match(change)):
            return True
        if known is None and not change.command:
            return False  # only a list says its name
        job = _merged(known, change)
        if not self._details:
            job = replace(job, metadata={}, require={})
        if job == known:
            return True
        at = self.jobs.index(known) if known is not None else self._place(change)
        if known is not None:
            del self.jobs[at]
        self._changed[job.id] = job
        if self._matches(job):
            self.jobs.insert(at, job)
            del self.jobs[self._limit :]
            return True
        return len(self.jobs) < self._limit - 1  # otherwise an older job may take its place

    def take_changed(self) -> list[JobSummary]:
        """Return the jobs that are new or have changed since the last call, oldest change first."""
        changed, self._changed = list(self._changed.values()), {}
        return changed

    def _is_older(self, change: JobChange) -> bool:
        """Whether an unknown job is older than all jobs of a full board."""
        return len(self.jobs) >= self._limit and change.submitted_ms < self.jobs[-1].submitted_ms

    def _place(self, change: JobChange) -> int:
        newer = (at for at, job in enumerate(self.jobs) if job.submitted_ms <= change.submitted_ms)
        return next(newer, len(self.jobs))

    def _may_match(self, change: JobChange) -> bool:
        texts = self._texts if change.command else {"queue": self._texts["queue"]}
        labelled = not change.command or change.metadata.items() >= self._metadata
        return (
            labelled
            and change.state in self._states
            and all(wanted in (None, getattr(change, name)) for name, wanted in texts.items())
        )

    def _matches(self, job: JobSummary) -> bool:
        return job.state in self._states


def _states(filters: JobFilters) -> frozenset[JobState]:
    state: Any = filters.get("state")  # as a text, a state is a sequence too
    return frozenset(JobState if not state else [state] if isinstance(state, JobState) else state)


def _age(job: JobSummary) -> tuple[int, int]:
    """Return what grows with each change of a job's state: its attempt, and how far it has come in it."""
    return job.attempt, 2 if job.state.terminal else job.state is JobState.SCHEDULED


def _merged(known: JobSummary | None, change: JobChange) -> JobSummary:
    if known is not None and not change.command:
        return replace(known, **{name: getattr(change, name) for name in _COURSE})
    return JobSummary(**{name: getattr(change, name) for name in _SHOWN})
