"""What a Store does, written to be read: jobs as plain objects, no index; machine.py compares a store with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from airunner.broker.store.rows import QueueKey
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import JobState, Reason, Result
from airunner.protocol.replies import QueueMode, QueueSummary
from airunner.protocol.requests import DequeueJob

DAY_MS = 86_400_000


@dataclass
class Refused(Exception):
    """With its code, and where an index is expected, that."""

    code: str
    expected_index: int | None = None


@dataclass
class Grant:
    """A lease as its agent knows it."""

    job: ModelJob
    attempt: int
    request: int


class Answer(NamedTuple):
    body: object
    job_ids: list[str]
    at_ms: int


@dataclass
class ModelJob:
    """One job; its log is a list of (kind or output, attempt)."""

    job_id: str
    tenant: str
    spec: JobSpec
    submitted_ms: int
    due_ms: int | None
    origin: str | None
    state: JobState = JobState.SCHEDULED
    attempt: int = 0
    agents_lost: int = 0
    retries: int = 0
    cancelling: bool = False
    stored: int = 0  # events of this attempt
    granted: int | None = None  # by which request it was leased last
    last: Grant | None = None  # whose last word on the job may be repeated
    settled: str = ""  # by which last word the attempt has ended
    deadline_ms: int = 0
    visibility_ms: int = 0
    started_ms: int | None = None
    finished_ms: int | None = None
    result: Result | None = None
    gone: bool = False
    log: list[tuple[str, int]] = field(default_factory=list)

    @property
    def key(self) -> QueueKey:
        return QueueKey(self.tenant, self.spec.queue)

    @property
    def ready(self) -> QueueKey:
        return self.key._replace(needs="\n".join(sorted(f"{name}={tag}" for name, tag in self.spec.require.items())))

    @property
    def expires_ms(self) -> int | None:
        """When it fails if it has not begun."""
        never = self.spec.expires is None or self.attempt or self.state is not JobState.SCHEDULED
        return None if never or self.spec.expires is None else self.spec.expires.deadline_ms(self.submitted_ms)

    def is_late(self, now_ms: int) -> bool:
        return self.expires_ms is not None and self.expires_ms <= now_ms

    @property
    def waits(self) -> bool:
        """It may be leased, as far as it is concerned."""
        return self.state is JobState.SCHEDULED and self.due_ms is None

    def note(self, what: str) -> None:
        self.log.append((what, self.attempt))

    def finish(self, result: Result, now_ms: int) -> None:
        self.state, self.result, self.finished_ms, self.due_ms = result.state, result, now_ms, None
        self.note("JOB_FINISHED")

    def held_by(self, grant: Grant) -> bool:
        """Whether the grant is that of the last attempt, running or not."""
        if self.gone:
            raise Refused("not-found")
        if self.last is not grant:
            raise Refused("stale-token")
        return self.state is JobState.RUNNING


class Model:
    """The queues and the event log."""

    def __init__(self) -> None:
        self.jobs: list[ModelJob] = []
        self.modes: dict[QueueKey, QueueMode] = {}
        self.answers: dict[tuple[str, bytes], Answer] = {}

    def retry(
        self, tenant: str, request_id: bytes, job: ModelJob, minted: list[str], now_ms: int, *, room: bool
    ) -> list[str]:
        if (tenant, request_id) not in self.answers and not (
            job.state.terminal and job.tenant == tenant and not job.gone
        ):
            raise Refused("not-found" if job.gone or job.tenant != tenant else "not-finished")
        spec = job.spec
        if spec.expires is not None and spec.expires.is_past(now_ms):
            spec = replace(spec, expires=None)
        return self.submit(tenant, request_id, job.job_id, [spec], minted, job.job_id, now_ms, room=room)

    def submit(
        self,
        tenant: str,
        request_id: bytes,
        body: object,
        specs: Sequence[JobSpec],
        minted: list[str],
        origin: str | None,
        now_ms: int,
        *,
        room: bool,
    ) -> list[str]:
        if (before := self.answers.get((tenant, request_id))) is not None:
            if before.body != body:
                raise Refused("conflict")
            return before.job_ids
        if not room:
            raise Refused("no-space")
        if QueueMode.DRAINING in {self.modes.get(QueueKey(tenant, spec.queue)) for spec in specs}:
            raise Refused("queue-draining")
        for job_id, spec in zip(minted, specs, strict=True):
            due_ms = spec.not_before_ms if (spec.not_before_ms or 0) > now_ms else None
            job = ModelJob(job_id, tenant, spec, now_ms, due_ms, origin)
            job.note("JOB_SCHEDULED")
            self.jobs.append(job)
            self.modes.setdefault(job.key, QueueMode.OPEN)
        self.answers[tenant, request_id] = Answer(body, minted, now_ms)
        return minted

    def dequeue(self, tenant: str, request: int, asked: DequeueJob, now_ms: int) -> list[Grant]:
        mine = [job for job in self.jobs if job.granted == request]
        held = [job.last for job in mine if job.last is not None and job.state is JobState.RUNNING]
        for grant in held:
            grant.job.deadline_ms = max(grant.job.deadline_ms, now_ms + grant.job.visibility_ms)
        if mine and not held:
            raise Refused("stale-token")
        if held:
            return held
        waiting = [job for job in self.jobs if job.waits and self.modes[job.key] is not QueueMode.PAUSED]
        waiting.sort(key=lambda job: -job.spec.priority)  # and in order of submission, as they stood
        keys = [QueueKey(tenant, queue) for queue in dict.fromkeys(asked.queues)]
        grants: list[Grant] = []
        suited = [job for job in waiting if job.spec.require.items() <= asked.tags.items()]
        for key in keys:
            for job in [job for job in suited if job.key == key][: asked.slots - len(grants)]:
                if job.is_late(now_ms):
                    job.finish(Result(reason=Reason.EXPIRED), now_ms)
                else:
                    grants.append(self.grant(job, request, asked.visibility_ms, now_ms))
        return grants

    def grant(self, job: ModelJob, request: int, visibility_ms: int, now_ms: int) -> Grant:
        job.state, job.stored, job.settled = JobState.RUNNING, 0, ""
        job.attempt += 1
        job.started_ms = now_ms if job.started_ms is None else job.started_ms
        job.visibility_ms, job.deadline_ms = visibility_ms, now_ms + visibility_ms
        job.granted, job.last = request, Grant(job, job.attempt, request)
        job.note("JOB_LEASED")
        return job.last

    def renew(self, grant: Grant, visibility_ms: int, now_ms: int) -> str:
        job = grant.job
        if job.last is not grant or job.state is not JobState.RUNNING:
            return "lost"
        job.visibility_ms, job.deadline_ms = visibility_ms, max(job.deadline_ms, now_ms + visibility_ms)
        return "cancel" if job.cancelling else "kept"

    def publish(self, grant: Grant, first_index: int, pieces: list[str]) -> int:
        job = grant.job
        runs = job.held_by(grant)
        if first_index > job.stored:
            raise Refused("index-gap", job.stored)
        fresh = pieces[job.stored - first_index :]
        if fresh and not runs:
            raise Refused("stale-token")
        for piece in fresh:
            job.note(piece)
        job.stored += len(fresh)
        return job.stored

    def complete(
        self,
        grant: Grant,
        event_count: int,
        result: Result,
        now_ms: int,
        pause_ms: int,
    ) -> JobState:
        """`pause_ms` is what the store has drawn, should the job run again."""
        job = grant.job
        if not job.held_by(grant):
            if job.settled not in ("completed", "retried"):
                raise Refused("stale-token")
            return JobState.SCHEDULED if job.settled == "retried" else job.state
        if job.stored != event_count:
            raise Refused("incomplete-log", job.stored)
        if self.runs_again(job, result):
            self.run_again(job, now_ms, pause_ms)
        else:
            job.settled = "completed"
            job.finish(result, now_ms)
        return job.state

    def runs_again(self, job: ModelJob, result: Result) -> bool:
        policy = job.spec.retry
        if policy is None or job.cancelling or result.state is not JobState.FAILED or job.retries >= policy.limit:
            return False
        return policy.on is None or (result.reason is None and result.exit_code in policy.on.exit_codes)

    def run_again(self, job: ModelJob, now_ms: int, pause_ms: int) -> None:
        policy = job.spec.retry
        assert policy is not None
        most_ms = min(policy.backoff_max_ms, policy.backoff_ms * 2**job.retries)
        assert most_ms // 2 <= pause_ms <= most_ms
        job.retries += 1
        job.state, job.settled, job.due_ms = JobState.SCHEDULED, "retried", now_ms + pause_ms if pause_ms else None
        job.note("JOB_SCHEDULED")

    def give_up(self, job: ModelJob, settled: str, what: str, now_ms: int, *, lost: bool) -> None:
        """The attempt is over without an end of its own."""
        job.state, job.settled = JobState.SCHEDULED, settled
        job.agents_lost += lost
        job.note(what)
        if job.cancelling:
            job.finish(Result(reason=Reason.CANCELLED), now_ms)
        elif lost and job.agents_lost >= job.spec.max_attempts:
            job.finish(Result(reason=Reason.AGENT_LOST), now_ms)

    def release(self, grant: Grant, now_ms: int, *, lost: bool) -> None:
        job = grant.job
        if job.held_by(grant):
            self.give_up(job, "released", "JOB_RELEASED", now_ms, lost=lost)
        elif job.settled != "released":
            raise Refused("stale-token")

    def expire(self, now_ms: int) -> set[QueueKey]:
        ready: set[QueueKey] = set()
        for job in self.jobs:
            due = False
            if job.state is JobState.RUNNING and job.deadline_ms <= now_ms:
                due, job.last = True, None
                self.give_up(job, "expired", "JOB_EXPIRED", now_ms, lost=True)
            elif job.is_late(now_ms):
                job.finish(Result(reason=Reason.EXPIRED), now_ms)
            elif job.due_ms is not None and job.due_ms <= now_ms:
                due, job.due_ms = True, None
            if due and job.waits:
                ready.add(job.ready)
        return ready

    def cancel(self, tenant: str, job: ModelJob, now_ms: int) -> JobState:
        if job.gone or job.tenant != tenant:
            raise Refused("not-found")
        if not job.state.terminal and not job.cancelling:
            job.cancelling = True
            job.note("JOB_CANCEL_REQUESTED")
            if job.state is JobState.SCHEDULED:
                job.finish(Result(reason=Reason.CANCELLED), now_ms)
        return job.state

    def renew_all(self, now_ms: int) -> None:
        for job in self.jobs:
            if job.state is JobState.RUNNING:
                job.deadline_ms = now_ms + job.visibility_ms

    def retain(self, before_ms: int, now_ms: int) -> None:
        for job in self.jobs:
            job.gone = job.finished_ms is not None and job.finished_ms < before_ms
        self.jobs = [job for job in self.jobs if not job.gone]
        before_ms = min(before_ms, now_ms - DAY_MS)
        self.answers = {key: answer for key, answer in self.answers.items() if answer.at_ms >= before_ms}

    def queues(self, tenant: str) -> list[QueueSummary]:
        used = {job.key for job in self.jobs}
        there = [(key, mode) for key, mode in sorted(self.modes.items()) if key in used or mode is not QueueMode.OPEN]
        return [self.summary(key, mode) for key, mode in there if key.tenant == tenant]

    def summary(self, key: QueueKey, mode: QueueMode) -> QueueSummary:
        mine = [job for job in self.jobs if job.key == key]
        return QueueSummary(
            queue=key.queue,
            mode=mode,
            waiting=sum(job.state is JobState.SCHEDULED for job in mine),
            delayed=sum(job.due_ms is not None for job in mine),
            running=sum(job.state is JobState.RUNNING for job in mine),
            oldest_ms=min((job.submitted_ms for job in mine if job.waits), default=None),
        )

    @property
    def next_due_ms(self) -> int | None:
        deadlines = [job.deadline_ms for job in self.jobs if job.state is JobState.RUNNING]
        deadlines += [job.expires_ms for job in self.jobs if job.expires_ms is not None]
        return min(deadlines + [job.due_ms for job in self.jobs if job.due_ms is not None], default=None)
