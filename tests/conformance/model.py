"""What a Store does, written to be read: jobs as plain objects, no index, no cleverness.

It keeps the promises of `broker.store.contract` for the machine in test_model.py to compare with.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from airunner.broker.store.contract import QueueKey
from airunner.protocol.job import JobSpec, JobState, Reason, Result


@dataclass
class Grant:
    """A lease as its agent knows it."""

    job: ModelJob
    attempt: int
    request: int


@dataclass
class ModelJob:
    """One job; its log is a list of (kind or output, attempt)."""

    number: int
    job_id: str
    tenant: str
    spec: JobSpec
    state: JobState = JobState.SCHEDULED
    attempt: int = 0
    agents_lost: int = 0
    stored: int = 0
    holder: Grant | None = None
    ended_by: Grant | None = None
    released_by: Grant | None = None
    deadline_ms: int = 0
    visibility_ms: int = 0
    result: Result | None = None
    log: list[tuple[str, int]] = field(default_factory=list)

    def note(self, what: str) -> None:
        self.log.append((what, self.attempt))

    def finish(self, result: Result) -> None:
        self.state, self.result, self.ended_by, self.holder = result.state, result, self.holder, None
        self.note("JOB_FINISHED")

    def wait_again(self, what: str) -> None:
        self.state, self.holder = JobState.SCHEDULED, None
        self.note(what)


class Refused(Exception):
    """With its code, and where an index is expected, that."""

    def __init__(self, code: str, expected_index: int | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.expected_index = expected_index


class Model:
    """The queue and the event log."""

    def __init__(self) -> None:
        self.jobs: list[ModelJob] = []

    def enqueue(self, tenant: str, job_id: str, spec: JobSpec) -> ModelJob:
        job = ModelJob(number=len(self.jobs), job_id=job_id, tenant=tenant, spec=spec)
        job.note("JOB_SCHEDULED")
        self.jobs.append(job)
        return job

    def dequeue(
        self, tenant: str, request: int, queues: tuple[str, ...], slots: int, visibility_ms: int, now_ms: int
    ) -> list[Grant]:
        held = [job.holder for job in self.jobs if job.holder is not None and job.holder.request == request]
        for grant in held:
            grant.job.deadline_ms = max(grant.job.deadline_ms, now_ms + grant.job.visibility_ms)
        if held:
            return held
        mine = [job for job in self.jobs if job.tenant == tenant and job.state is JobState.SCHEDULED]
        waiting = [job for queue in dict.fromkeys(queues) for job in mine if job.spec.queue == queue][:slots]
        grants: list[Grant] = []
        for job in waiting:
            job.state, job.stored, job.released_by = JobState.RUNNING, 0, None
            job.attempt += 1
            job.visibility_ms, job.deadline_ms = visibility_ms, now_ms + visibility_ms
            job.holder = Grant(job, job.attempt, request)
            job.note("JOB_LEASED")
            grants.append(job.holder)
        return grants

    def renew(self, grant: Grant, visibility_ms: int, now_ms: int) -> bool:
        job = grant.job
        if job.holder is not grant:
            return False
        job.visibility_ms, job.deadline_ms = visibility_ms, max(job.deadline_ms, now_ms + visibility_ms)
        return True

    def publish(self, grant: Grant, first_index: int, pieces: list[str]) -> int:
        job = grant.job
        if grant not in (job.holder, job.ended_by, job.released_by):
            raise Refused("stale-token")
        if first_index > job.stored:
            raise Refused("index-gap", job.stored)
        fresh = pieces[job.stored - first_index :]
        if fresh and job.holder is not grant:
            raise Refused("stale-token")
        for piece in fresh:
            job.note(piece)
        job.stored += len(fresh)
        return job.stored

    def complete(self, grant: Grant, event_count: int, result: Result, last: tuple[int, list[str]] | None) -> JobState:
        job = grant.job
        if job.ended_by is grant:
            return job.state
        if job.holder is not grant:
            raise Refused("stale-token")
        would_be = job.stored
        if last is not None and last[0] <= job.stored:
            would_be = max(job.stored, last[0] + len(last[1]))
        if would_be != event_count:
            raise Refused("incomplete-log", job.stored)
        if last is not None:
            self.publish(grant, *last)
        job.finish(result)
        return job.state

    def release(self, grant: Grant) -> None:
        job = grant.job
        if job.released_by is grant:
            return
        if job.holder is not grant:
            raise Refused("stale-token")
        job.released_by = grant
        job.wait_again("JOB_RELEASED")

    def expire(self, now_ms: int) -> set[QueueKey]:
        ready: set[QueueKey] = set()
        for job in self.jobs:
            if job.state is JobState.RUNNING and job.deadline_ms <= now_ms:
                job.agents_lost += 1
                job.wait_again("JOB_EXPIRED")
                if job.agents_lost < job.spec.max_attempts:
                    ready.add(QueueKey(job.tenant, job.spec.queue))
                else:
                    job.finish(Result(reason=Reason.AGENT_LOST))
        return ready

    def resume(self, now_ms: int) -> None:
        for job in self.jobs:
            if job.state is JobState.RUNNING:
                job.deadline_ms = now_ms + job.visibility_ms

    @property
    def next_due_ms(self) -> int | None:
        return min((job.deadline_ms for job in self.jobs if job.state is JobState.RUNNING), default=None)
