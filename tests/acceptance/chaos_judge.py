"""What a chaos run has come to: every job that was accepted or is there, every log, and every monitor's view."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import anyio
from msgspec import Struct

from airunner import Client, Event, Job, JobState, JobSummary, Patience, Reason, Result, Stream
from airunner.protocol.events import JobExpired, JobFinished, JobReleased, Output, ProcessError
from tests.acceptance.chaos_jobs import expected_code, expected_output
from tests.acceptance.chaos_users import Journal, View, fingerprint, journals, views

SHOWN_MAX: Final = 10  # of each kind of finding
PAGE_SIZE: Final = 100
COLUMN: Final = 24
NO_PROCESS: Final = os.strerror(errno.EAGAIN)
PATIENCE: Final = Patience(first_s=30, later_s=30)
WRONGS: Final = (
    "lost",
    "submitted twice",
    "finished twice",
    "logs with a hole",
    "wrong results",
    "wrong views",
    "run twice at once",
    "outlived their lease",  # on a machine that had slept past it
    "refusals that counted",  # a machine's, as if an agent had been lost
    "faults never seen",
    "processes left behind",
    "ended by themselves",  # or not when they should
)


class Findings:
    """What was counted, and what should not be."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refusals = 0  # of a process, by a machine that had none
        self._wrong: dict[str, list[str]] = {what: [] for what in WRONGS}
        self._notes: list[str] = []

    @property
    def clean(self) -> bool:
        """Nothing is wrong, and it was not for want of work."""
        return self.accepted > 0 and not any(self._wrong.values())

    def add(self, what: str, found: Iterable[str]) -> None:
        self._wrong[what].extend(one for one in found if one not in self._wrong[what])

    def note(self, line: str) -> None:
        self._notes.append(line)

    def lines(self) -> list[str]:
        lines = [f"{'jobs accepted':<{COLUMN}}{self.accepted}"]
        for what, found in self._wrong.items():
            lines.append(f"{what:<{COLUMN}}{len(found)}")
            lines += [f"    {one}" for one in found[:SHOWN_MAX]]
        return [*lines, *self._notes]


class Cluster(Struct, frozen=True):
    """Where the clients' journals and the monitors' views are, and the broker that they spoke to."""

    folder: Path
    home: Path
    broker: str

    def client(self) -> Client:
        return Client(self.broker, home=self.home, patience=PATIENCE)


def accepted(folder: Path) -> list[tuple[str, str]]:
    """Every request, with the job that its client was told of."""
    return [line for path in sorted(journals(folder)) for line in Journal(path).accepted()]


async def drain(cluster: Cluster, within_s: float, tell: Callable[[str], None]) -> None:
    """Wait for the end of every job, as long as that is bearable."""
    with anyio.move_on_after(within_s):
        async with cluster.client() as client:
            waiting = [summary.id async for summary in _listed(client) if not summary.state.terminal]
            for number, job_id in enumerate(waiting):
                tell(f"draining: {len(waiting) - number} jobs have not ended")
                async with client.follow(job_id) as events:
                    async for _ in events:
                        pass


async def judge(cluster: Cluster, findings: Findings) -> None:
    """Hold every job to what was promised, whether its client was told of it or not."""
    told = accepted(cluster.folder)
    findings.accepted = len(told)
    logs: dict[str, list[Event]] = {}
    jobs: list[Job] = []
    async with cluster.client() as client:
        async for summary in _listed(client):
            jobs.append(await client.get(summary.id))
            logs[summary.id] = [event async for event in client.replay(summary.id)]
    findings.add("lost", [f"{job_id}: accepted, and not there" for _, job_id in told if job_id not in logs])
    _judge_requests(told, jobs, findings)
    for job in jobs:
        _judge_job(job, logs[job.id], findings)
    _judge_views(views(cluster.folder), logs, findings)
    again = sum(max(0, job.attempt - 1) for job in jobs)
    lost = sum(job.result is not None and job.result.reason is Reason.AGENT_LOST for job in jobs)
    findings.note(
        f"{len(jobs)} jobs were there, leased {again} times more than once each; {lost} lost all their agents"
    )


async def _listed(client: Client) -> AsyncIterator[JobSummary]:
    before: str | None = None
    while True:
        page = await client.list_jobs(before=before, page_size=PAGE_SIZE)
        for summary in page.jobs:
            yield summary
        if not page.more:
            return
        before = page.jobs[-1].id


def _judge_requests(told: Sequence[tuple[str, str]], jobs: Sequence[Job], findings: Findings) -> None:
    """Each request is one job, the one that its client was told of."""
    requests = Counter(job.spec.metadata["request"] for job in jobs)
    findings.add("submitted twice", [f"{request}: {count} jobs" for request, count in requests.items() if count > 1])
    made = {job.id: job.spec.metadata["request"] for job in jobs}
    others = [f"{job_id} was told to {request}" for request, job_id in told if made.get(job_id, request) != request]
    findings.add("submitted twice", others)


def _judge_job(job: Job, log: Sequence[Event], findings: Findings) -> None:
    if not job.state.terminal:
        findings.add("lost", [f"{job.id}: {job.state} after the drain"])
        return
    ends = [event.body for event in log if isinstance(event.body, JobFinished)]
    if [end.state for end in ends] != [job.state] or not isinstance(log[-1].body, JobFinished):
        findings.add("finished twice", [f"{job.id}: {job.state}, and its log has {[end.state for end in ends]}"])
    if [event.sequence for event in log] != list(range(1, job.last_sequence + 1)):
        findings.add("logs with a hole", [f"{job.id}: {[event.sequence for event in log]} of {job.last_sequence}"])
    if wrong := _wrong_result(job, log):
        findings.add("wrong results", [f"{job.id}: {wrong}"])
    findings.add("logs with a hole", _wrong_output(job, log))
    refused = _refused(log)
    findings.refusals += len(refused)
    lost = {event.attempt for event in log if isinstance(event.body, JobReleased) and event.body.lost}
    findings.add("refusals that counted", [f"{job.id}: attempt {attempt}" for attempt in sorted(refused & lost)])


def _refused(log: Sequence[Event]) -> set[int]:
    """The attempts for which a machine had no process."""
    return {event.attempt for event in log if isinstance(event.body, ProcessError) and NO_PROCESS in event.body.message}


def _wrong_result(job: Job, log: Sequence[Event]) -> str | None:
    """What is wrong with how it ended; losing every agent that it may is no wrong."""
    result = job.result or Result()
    code = expected_code(job.spec)
    if result.reason is Reason.AGENT_LOST:
        lost = sum(_lost_its_agent(event) for event in log)
        return None if lost == job.spec.max_attempts else f"agent-lost, and it lost {lost}"
    state = JobState.FAILED if code else JobState.COMPLETED
    right = (job.state, result.exit_code, result.signal) == (state, code, None)
    return None if right else f"{job.state} {result}, and its command exits with {code}"


def _lost_its_agent(event: Event) -> bool:
    match event.body:
        case JobExpired() | JobReleased(lost=True):
            return True
        case _:
            return False


def _wrong_output(job: Job, log: Sequence[Event]) -> list[str]:
    """The attempt that came to its end has all that the command wrote, each one before it a first part of that."""
    expected = expected_output(job.id, job.spec)
    whole = job.attempt if job.result is None or job.result.reason is not Reason.AGENT_LOST else None
    wrong: list[str] = []
    for attempt in range(1, job.attempt + 1):
        bodies = [event.body for event in log if event.attempt == attempt]
        said = b"".join(body.data for body in bodies if isinstance(body, Output) and body.stream is Stream.STDOUT)
        if said != expected if attempt == whole else not expected.startswith(said):
            wrong.append(f"{job.id}: {len(said)} bytes of attempt {attempt} are not what it wrote ({len(expected)})")
    return wrong


def _judge_views(seen: Sequence[View], logs: Mapping[str, Sequence[Event]], findings: Findings) -> None:
    """Each saw, from where it began, the events of the final log, each once; to the last, if it says so."""
    for view in seen:
        log = [f"{event.sequence} {fingerprint(event)}" for event in logs.get(view.job_id, [])]
        right = log[view.first - 1 :] if view.ended else log[view.first - 1 :][: len(view.shown)]
        if view.shown != right:
            at = next(
                (n for n, pair in enumerate(zip(view.shown, right, strict=False)) if pair[0] != pair[1]), "its end"
            )
            findings.add("wrong views", [f"{view.path.name}: of {view.job_id} from {view.first}, wrong at {at}"])
    ended = sum(view.ended for view in seen)
    findings.note(f"{len(seen)} views of monitors, {ended} of them to the end of the job")
