"""Makes up histories in few words, for the tests of the oracle: what is told here never happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from airunner.protocol.events import (
    Event,
    EventBody,
    Heartbeat,
    JobCancelRequested,
    JobExpired,
    JobFinished,
    JobLeased,
    JobReleased,
    JobScheduled,
    Output,
    ProcessEnd,
    ProcessStart,
    Stream,
)
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import Job, JobState, Reason
from airunner.protocol.jobretry import RetryPolicy
from airunner.protocol.names import JobId
from airunner.protocol.replies import Verdict
from tests.simulation.fold import fold
from tests.simulation.history import (
    Acknowledged,
    Completed,
    FinalEvents,
    FinalJob,
    FollowEnded,
    Granted,
    Healed,
    History,
    Invoked,
    Judged,
    Killed,
    Monitored,
    ProcessGone,
    ProcessStarted,
    ProcessWrote,
    Record,
    Released,
    Started,
    Stored,
)

WALL_MS: Final = 1_000_000  # the broker's clock when the tale begins
VISIBILITY_MS: Final = 10_000
STEP_MS: Final = 100  # passes with everything that is told


class Tale:
    """Each method is something that happens, `STEP_MS` after what was told before."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.offset_ms = WALL_MS
        self.records: list[Record] = []
        self.specs: dict[str, JobSpec] = {}
        self.logs: dict[str, list[Event]] = {}
        self.shown: dict[str, Job] = {}  # instead of what the log comes to
        self.unread: set[str] = set()  # jobs whose logs are not given in the end
        self.pid = 0  # of the process that was started last
        self.leases: dict[tuple[str, int], bytes] = {}  # the request that each attempt was granted to
        self._ids = 0
        self.add(Started(at_ms=0, machine="broker", broker=True, wall_offset_ms=WALL_MS))

    # --- one job's life in words ----------------------------------------------------------------------

    def play(self, words: str, spec: JobSpec | None = None) -> str:
        """A job is submitted, and then `act`; its id."""
        job = self.submit(*([] if spec is None else [spec]))
        self.act(job, words)
        return job

    def act(self, job: str, words: str) -> None:
        """What happens to the job, in its order; some words have a number behind a colon."""
        for word in words.split():
            name, _, number = word.partition(":")
            self._step(job, name, int(number) if number else None)

    def _step(self, job: str, name: str, number: int | None) -> None:
        steps: dict[str, Callable[[], object]] = {
            "again": lambda: self.granted(job, number or 1, self.leases[(job, number or 1)]),
            "beat": lambda: self.log(job, Heartbeat(timestamp_ms=0), number),
            "cancel": lambda: self.cancel(job),
            "completed": lambda: self.completed(job, JobState.COMPLETED, number),
            "die": lambda: self.die(self.pid, 0),
            "exit": lambda: self.exit(job, self.pid, number or 0),
            "expire": lambda: self.expire(job, VISIBILITY_MS if number is None else number),
            "finish": lambda: self.finish(job, number or 0),
            "kill": lambda: self.die(self.pid, signal=9),
            "lease": lambda: self.lease(job, attempt=number),
            "lost": lambda: self.log(job, JobFinished(timestamp_ms=0, state=JobState.FAILED, reason=Reason.AGENT_LOST)),
            "output": lambda: self.log(job, Output(timestamp_ms=0, stream=Stream.STDOUT, data=b"hello\n")),
            "release": lambda: self.release(job),
            "renew": lambda: self.renew(job, attempt=number),
            "restart": lambda: self.restart(number or 0),
            "run": lambda: self.run(job),
            "silent": lambda: self.run(job, logged=b""),
            "stored": lambda: self.stored(job, number or 0),
            "wait": lambda: self.wait(number or 0),
            "waits": lambda: self.scheduled(job, retry=1),
            "work": lambda: self.work(job),
        }
        steps[name]()

    # --- what happens ---------------------------------------------------------------------------------

    def wait(self, ms: int) -> None:
        """Nothing happens."""
        self.now_ms += ms

    def add(self, *records: Record) -> None:
        """These happen."""
        self.now_ms += STEP_MS
        self.records += [replace(record, at_ms=self.now_ms) for record in records]

    def log(self, job: str, body: EventBody, attempt: int | None = None) -> None:
        """The broker appends an event, by its clock of now."""
        events = self.logs[job]
        number = attempt if attempt is not None else events[-1].attempt if events else 0
        stamped = replace(body, timestamp_ms=self.now_ms + self.offset_ms)
        events.append(Event(job_id=JobId(job), sequence=len(events) + 1, attempt=number, body=stamped))

    def request_id(self) -> bytes:
        """Another one."""
        self._ids += 1
        return self._ids.to_bytes(16, "big")

    # --- clients --------------------------------------------------------------------------------------

    def submit(self, *specs: JobSpec, told: bool = True) -> str:
        """A client submits a job, or several at once; the first one's id."""
        request_id = self.request_id()
        jobs = specs or (JobSpec(command="true", args=(str(len(self.specs)),)),)
        self.add(Invoked(at_ms=0, machine="client", request_id=request_id, kind="enqueue", jobs=jobs))
        job_ids = tuple(self._new(spec) for spec in jobs)
        if told:
            self.acknowledged(request_id, "enqueue", *job_ids)
        return job_ids[0]

    def retry(self, origin: str) -> str:
        """A client submits an ended job anew."""
        request_id = self.request_id()
        self.add(Invoked(at_ms=0, machine="client", request_id=request_id, kind="retry", job_id=origin))
        job = self._new(self.specs[origin], origin)
        self.acknowledged(request_id, "retry", job)
        return job

    def acknowledged(self, request_id: bytes, kind: str, *job_ids: str) -> None:
        """A client is told."""
        self.add(Acknowledged(at_ms=0, machine="client", request_id=request_id, kind=kind, job_ids=job_ids))

    def _new(self, spec: JobSpec, origin: str | None = None) -> str:
        job = f"job-{len(self.specs) + 1}"
        self.specs[job], self.logs[job] = spec, []
        body = JobScheduled(
            timestamp_ms=0,
            queue=spec.queue,
            not_before_ms=spec.not_before_ms,
            origin=None if origin is None else JobId(origin),
        )
        self.log(job, body)
        return job

    def scheduled(self, job: str, not_before_ms: int | None = None, retry: int = 0) -> None:
        """The job waits."""
        self.log(job, JobScheduled(timestamp_ms=0, queue="default", not_before_ms=not_before_ms, retry=retry))

    def asked_to_cancel(self, job: str, state: JobState | None) -> None:
        """A client asks for a cancel and is told `state`."""
        request_id = self.request_id()
        self.add(
            Invoked(at_ms=0, machine="client", request_id=request_id, kind="cancel", job_id=job),
            Acknowledged(at_ms=0, machine="client", request_id=request_id, kind="cancel", state=state),
        )

    def cancel(self, job: str) -> None:
        """The job is to be ended; one that waits has ended."""
        self.add()
        self.log(job, JobCancelRequested(timestamp_ms=0))
        running = fold(tuple(self.logs[job])).state is JobState.RUNNING
        if not running:
            self.log(job, JobFinished(timestamp_ms=0, state=JobState.CANCELLED, reason=Reason.CANCELLED))
        self.asked_to_cancel(job, JobState.RUNNING if running else JobState.CANCELLED)

    def set_queue(self, mode: str, *, told: bool = True) -> None:
        """A client sets the mode of the queue."""
        request_id = self.request_id()
        self.add(Invoked(at_ms=0, machine="client", request_id=request_id, kind="queue", queue="default", mode=mode))
        if told:
            self.acknowledged(request_id, "queue")

    def follow(self, job: str, from_sequence: int = 1, until: int | None = None, monitor: str = "monitor") -> None:
        """A monitor is shown what there is by now; to the end, unless `until`."""
        for event in self.logs[job][from_sequence - 1 : until]:
            self.add(Monitored(at_ms=0, monitor=monitor, job_id=job, from_sequence=from_sequence, event=event))
        if until is None:
            self.add(FollowEnded(at_ms=0, monitor=monitor, job_id=job, from_sequence=from_sequence))

    # --- broker and agents ----------------------------------------------------------------------------

    def lease(self, job: str, agent: str = "agent-1", attempt: int | None = None) -> None:
        """The job is leased to an agent, who is told."""
        attempt = fold(tuple(self.logs[job])).attempt + 1 if attempt is None else attempt
        self.add()
        self.log(job, JobLeased(timestamp_ms=0, agent=agent), attempt)
        self.leases[job, attempt] = self.request_id()
        self.granted(job, attempt, self.leases[job, attempt], agent)

    def granted(self, job: str, attempt: int, request_id: bytes, agent: str = "agent-1") -> None:
        """The broker tells of a grant."""
        self.add(
            Granted(
                at_ms=0,
                machine=agent,
                request_id=request_id,
                asked_at_ms=self.now_ms,
                job_id=job,
                attempt=attempt,
                visibility_ms=VISIBILITY_MS,
            )
        )

    def renew(self, job: str, verdict: Verdict = Verdict.KEPT, attempt: int | None = None) -> None:
        """A heartbeat is answered."""
        self.add(
            Judged(
                at_ms=0,
                machine="agent-1",
                request_id=self.request_id(),
                asked_at_ms=self.now_ms,
                job_id=job,
                attempt=self.attempt(job) if attempt is None else attempt,
                verdict=verdict,
                visibility_ms=VISIBILITY_MS,
            )
        )

    def run(self, job: str, output: bytes = b"hello\n", logged: bytes | None = None) -> int:
        """The job's process starts and writes; `logged` of it comes to the log."""
        pid = self.pid = len(self.records)
        attempt = self.attempt(job)
        self.add(ProcessStarted(at_ms=0, machine="agent-1", pid=pid, job_id=job, attempt=attempt))
        self.log(job, ProcessStart(timestamp_ms=0, pid=pid, started_at=0))
        self.add(ProcessWrote(at_ms=0, pid=pid, stream=Stream.STDOUT, data=output))
        if logged != b"":
            self.log(job, Output(timestamp_ms=0, stream=Stream.STDOUT, data=output if logged is None else logged))
        return pid

    def die(self, pid: int, exit_code: int | None = None, signal: int | None = None) -> None:
        """The process ends, and its agent does not see it."""
        self.add(ProcessGone(at_ms=0, pid=pid, exit_code=exit_code, signal=signal))

    def exit(self, job: str, pid: int, exit_code: int = 0) -> None:
        """The process ends, and its agent publishes that."""
        self.die(pid, exit_code)
        self.log(job, ProcessEnd(timestamp_ms=0, pid=pid, exit_code=exit_code))
        published = [event for event in self.logs[job] if event.attempt == self.attempt(job)]
        self.stored(job, sum(not event.kind.startswith("JOB_") for event in published))

    def stored(self, job: str, next_index: int) -> None:
        """The broker acknowledges events."""
        self.add(
            Stored(
                at_ms=0,
                machine="agent-1",
                request_id=self.request_id(),
                asked_at_ms=self.now_ms,
                job_id=job,
                attempt=self.attempt(job),
                next_index=next_index,
            )
        )

    def finish(self, job: str, exit_code: int = 0) -> None:
        """The attempt is completed, and the job with it."""
        state = JobState.FAILED if exit_code else JobState.COMPLETED
        reason = Reason.EXIT_CODE if exit_code else None
        self.add()
        self.log(job, JobFinished(timestamp_ms=0, state=state, exit_code=exit_code, reason=reason))
        self.completed(job, state)

    def completed(self, job: str, state: JobState, attempt: int | None = None) -> None:
        """The broker says that the attempt is completed."""
        self.add(
            Completed(
                at_ms=0,
                machine="agent-1",
                request_id=self.request_id(),
                asked_at_ms=self.now_ms,
                job_id=job,
                attempt=self.attempt(job) if attempt is None else attempt,
                state=state,
            )
        )

    def release(self, job: str) -> None:
        """The agent gives the job back."""
        attempt = self.attempt(job)
        self.add()
        self.log(job, JobReleased(timestamp_ms=0))
        request_id = self.request_id()
        self.add(
            Released(at_ms=0, machine="agent-1", request_id=request_id, asked_at_ms=0, job_id=job, attempt=attempt)
        )

    def expire(self, job: str, after_ms: int = VISIBILITY_MS) -> None:
        """The agent is lost, `after_ms` from now."""
        self.wait(after_ms)
        self.log(job, JobExpired(timestamp_ms=0))

    def restart(self, jump_ms: int = 0) -> None:
        """Another broker starts, with a clock that has jumped."""
        self.add(Killed(at_ms=0, machine="broker"))
        self.offset_ms += jump_ms
        self.add(Started(at_ms=0, machine="broker", broker=True, wall_offset_ms=self.offset_ms))

    def whole(self, *specs: JobSpec) -> str:
        """A job's whole good life."""
        job = self.submit(*specs)
        self.lease(job)
        self.work(job)
        return job

    def work(self, job: str) -> None:
        """An attempt that goes well."""
        self.exit(job, self.run(job))
        self.finish(job)

    # --- the end --------------------------------------------------------------------------------------

    def attempt(self, job: str) -> int:
        """The attempt that runs, or ran last."""
        return self.logs[job][-1].attempt

    def job(self, job: str) -> Job:
        """What the log comes to."""
        folded = fold(tuple(self.logs[job]))
        assert folded.state is not None, "it was submitted"
        assert folded.submitted_ms is not None, "it was submitted"
        return Job(
            id=JobId(job),
            state=folded.state,
            spec=self.specs[job],
            submitted_ms=folded.submitted_ms,
            attempt=folded.attempt,
            last_sequence=len(self.logs[job]),
            agent=folded.agent,
            started_ms=folded.started_ms,
            finished_ms=folded.finished_ms,
            result=folded.result,
            retries=folded.retries,
            cancel_requested_ms=folded.cancel_requested_ms,
            origin=None if folded.origin is None else JobId(folded.origin),
        )

    def told(self) -> History:
        """The history, with what is left at the end of it."""
        history = History()
        for record in (*self.records, Healed(at_ms=self.now_ms)):
            history.add(record)
        for job, events in self.logs.items():
            history.add(FinalJob(at_ms=self.now_ms, job=self.shown.get(job, self.job(job))))
            if job not in self.unread:
                history.add(FinalEvents(at_ms=self.now_ms, job_id=job, events=tuple(events)))
        return history


RETRIED: Final = JobSpec(command="false", retry=RetryPolicy(limit=1, backoff_ms=0))
LOST_ONCE: Final = JobSpec(command="sleep", max_attempts=1)
