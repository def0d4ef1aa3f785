"""What a chaos run has come to: its history, which the simulation's oracle judges.

The users' diaries say what was asked, told and shown, the jobs' logs who was leased what and when it ran. What a
command wrote and how it exited follows from its name. Where no log tells its end it has ended with its lease; whether
it has is seen from outside (`chaos`).
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Final

import anyio
from msgspec import Struct
from msgspec.structs import replace

from airunner import Client, Event, Job, Patience, Reason, Stream
from airunner.protocol.events import JobLeased, ProcessEnd, ProcessError, ProcessStart
from tests.acceptance.chaos_jobs import expected_code, expected_output
from tests.acceptance.chaos_users import accepted, diaries
from tests.simulation.fold import fold
from tests.simulation.history import (
    FinalEvents,
    FinalJob,
    Granted,
    Healed,
    History,
    Monitored,
    ProcessGone,
    ProcessStarted,
    ProcessWrote,
    Record,
    Started,
    pack,
    wall_ms,
)
from tests.simulation.oracle import check
from tests.simulation.users import all_jobs

SHOWN_MAX: Final = 10  # of each kind of finding
COLUMN: Final = 24
NO_PROCESS: Final = os.strerror(errno.EAGAIN)
PATIENCE: Final = Patience(first_s=30, later_s=30)
OWN_ENDS: Final = (None, Reason.EXIT_CODE, Reason.AGENT_LOST)  # the oracle's laws say when each may be
INSTANTS: Final = ("submitted_ms", "started_ms", "finished_ms", "cancel_requested_ms", "due_ms")
OF_ONE_BROKER: Final = ("priority_and_then_submission_order_are_kept",)
"""Laws that are not judged of several brokers: these stamp an event, and may show it only after an outage."""
WRONGS: Final = (
    "laws broken",
    "wrong ends",
    "run twice at once",
    "outlived their lease",  # on a machine that had slept past it
    "faults never seen",
    "processes left behind",
    "ended by themselves",  # or not when they should
)


class Findings:
    """What was counted, and what should not be."""

    def __init__(self, *more: str) -> None:
        self.accepted = 0
        self.refusals = 0  # of a process, by a machine that had none
        self._wrong: dict[str, list[str]] = {what: [] for what in (*WRONGS, *more)}
        self._notes: list[str] = []

    @property
    def clean(self) -> bool:
        """Nothing is wrong, and it was not for want of work."""
        return self.accepted > 0 and not any(self._wrong.values())

    def add(self, what: str, found: Iterable[str]) -> None:
        self._wrong[what].extend(one for one in found if one not in self._wrong[what])

    def found(self, what: str) -> list[str]:
        return self._wrong[what]

    def note(self, line: str) -> None:
        self._notes.append(line)

    def lines(self) -> list[str]:
        lines = [f"{'jobs accepted':<{COLUMN}}{self.accepted}"]
        for what, found in self._wrong.items():
            lines.append(f"{what:<{COLUMN}}{len(found)}")
            lines += [f"    {one}" for one in found[:SHOWN_MAX]]
        return [*lines, *self._notes]


class Cluster(Struct, frozen=True):
    """Where the diaries of clients and monitors are, and the brokers that they spoke to.

    `step_ms`: the clocks of brokers may have been set by multiples of this, which is much longer than the run; 0: not.
    """

    folder: Path
    home: Path
    broker: str
    begun_ms: int
    visibility_ms: int
    step_ms: int = 0

    def true_ms(self, shown_ms: int) -> int:
        """When a broker's clock has shown this."""
        return shown_ms - self.step_ms * round((shown_ms - self.begun_ms) / self.step_ms) if self.step_ms else shown_ms

    def client(self) -> Client:
        return Client(self.broker, home=self.home, patience=PATIENCE)


async def drain(cluster: Cluster, within_s: float, tell: Callable[[str], None]) -> None:
    """Wait for the end of every job, as long as that is bearable."""
    with anyio.move_on_after(within_s):
        async with cluster.client() as client:
            waiting = [summary.id async for summary in all_jobs(client) if not summary.state.terminal]
            for number, job_id in enumerate(waiting):
                tell(f"draining: {len(waiting) - number} jobs have not ended")
                async with client.follow(job_id) as events:
                    async for _ in events:
                        pass


Kept = list[tuple[Job, list[Event]]]
"""All jobs that are left, each with its log."""


async def judge(cluster: Cluster, deaths: Sequence[Record], findings: Findings) -> Kept:
    """Hold every job to what was promised, whether its client was told of it or not; return them all."""
    records = [record for diary in diaries(cluster.folder) for record in diary]
    findings.accepted = len(accepted(records))
    async with cluster.client() as client:
        jobs = [
            (await client.get(summary.id), [event async for event in client.replay(summary.id)])
            async for summary in all_jobs(client)
        ]
    history = history_of(cluster, [*records, *deaths], jobs)
    (cluster.folder / "history").write_bytes(pack(history))  # kept with the folder, to find out why
    broken = check(history)
    several = len(cluster.broker.split()) > 1
    findings.add("laws broken", (str(one) for one in broken if not (several and one.law in OF_ONE_BROKER)))
    ends = [(job.id, job.result.reason) for job, _ in jobs if job.result is not None]
    findings.add("wrong ends", [f"{job_id}: {reason}" for job_id, reason in ends if reason not in OWN_ENDS])
    bodies = [event.body for _, log in jobs for event in log]
    findings.refusals = sum(isinstance(body, ProcessError) and NO_PROCESS in body.message for body in bodies)
    again = sum(max(0, job.attempt - 1) for job, _ in jobs)
    lost = sum(reason is Reason.AGENT_LOST for _, reason in ends)
    shown = sum(isinstance(record, Monitored) for record in records)
    findings.note(
        f"{len(jobs)} jobs were there, leased {again} times more than once each; {lost} lost all their agents; "
        f"{shown} events were shown to monitors"
    )
    return jobs


def history_of(cluster: Cluster, records: Iterable[Record], jobs: Iterable[tuple[Job, list[Event]]]) -> History:
    """One history of all that was written down and all that is left."""
    pids: defaultdict[tuple[str, int], int] = defaultdict(count(1).__next__)  # a system gives one to several

    def numbered(event: Event) -> Event:
        body = event.body
        if isinstance(body, ProcessStart | ProcessEnd):
            body = replace(body, pid=pids[event.job_id, event.attempt])
        if cluster.step_ms:
            body = replace(body, timestamp_ms=cluster.true_ms(body.timestamp_ms))
        return replace(event, body=body)

    happened: list[Record] = [Started(at_ms=cluster.begun_ms, machine="broker", broker=True)]
    happened += (
        replace(record, event=numbered(record.event)) if isinstance(record, Monitored) else record for record in records
    )
    left: list[Record] = [Healed(at_ms=wall_ms())]
    for shown, log in jobs:
        job = _at_true_times(cluster, shown)
        events = tuple(map(numbered, log))
        happened += _attempts(cluster, job, events)
        left += [FinalJob(at_ms=wall_ms(), job=job), FinalEvents(at_ms=wall_ms(), job_id=job.id, events=events)]
    return History([*sorted(happened, key=lambda record: record.at_ms), *left])


def _at_true_times(cluster: Cluster, job: Job) -> Job:
    """The job with instants of a clock that nobody has set."""
    shown = {name: getattr(job, name) for name in INSTANTS}
    return replace(job, **{name: cluster.true_ms(at_ms) for name, at_ms in shown.items() if at_ms is not None})


def _attempts(cluster: Cluster, job: Job, events: tuple[Event, ...]) -> Iterator[Record]:
    """Who was leased the job, and its processes. Of several brokers a later lease may have an earlier stamp."""
    granted_ms = 0
    for lease in fold(events).leases:
        assert isinstance(lease.begin.body, JobLeased)
        machine, at_ms, named = lease.begin.body.agent, lease.begin.timestamp_ms, f"{job.id} {lease.attempt}"
        granted_ms = max(granted_ms, at_ms)
        yield Granted(
            at_ms=granted_ms,
            machine=machine,
            broker="broker",
            request_id=named.encode(),
            asked_at_ms=granted_ms,
            job_id=job.id,
            attempt=lease.attempt,
            visibility_ms=cluster.visibility_ms,
        )
        ends = [event for event in events if event.attempt == lease.attempt and isinstance(event.body, ProcessEnd)]
        over = next(iter(ends), lease.end)
        for start in (event for event in events if event.attempt == lease.attempt):
            if isinstance(start.body, ProcessStart):
                pid, at_ms = start.body.pid, start.timestamp_ms
                yield ProcessStarted(at_ms=at_ms, machine=machine, pid=pid, job_id=job.id, attempt=lease.attempt)
                yield ProcessWrote(at_ms=at_ms, pid=pid, stream=Stream.STDOUT, data=expected_output(job.id, job.spec))
                if over is not None:
                    yield ProcessGone(at_ms=over.timestamp_ms, pid=pid, exit_code=expected_code(job.spec))
