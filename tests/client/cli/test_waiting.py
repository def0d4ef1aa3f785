"""The cause why a job waits is said where the broker knows it, with the command that helps; and why a job failed."""

from __future__ import annotations

from typing import Any

import pytest

from airunner.client.cli.causes import OTHER_BROKERS, SILENT_MS, Cause, Seen, ahead_of, why_waiting
from airunner.client.cli.endings import why_failed
from airunner.client.cli.explain import last_line
from airunner.protocol.events import Event, GitCloneError, Output, ProcessError, Stream
from airunner.protocol.fields import JobSpec
from airunner.protocol.job import Job, JobState, JobSummary, Reason, Result, Usage
from airunner.protocol.musts import MUST_KNOW
from airunner.protocol.names import JobId
from airunner.protocol.replies import AgentSummary, QueueMode, QueueSummary

NOW_MS = 1_000_000_000
DUE_MS = NOW_MS + 90_000
DUE = "at 1970-01-12T13:48:10Z at the earliest, in 1 min 30 s"
RUNNING = JobState.RUNNING
DRAINS = "; the queue is draining, and still runs the jobs that it has"
BUSY = "all 2 slots of 2 agents are busy"
TOO_OLD = "the agents of queue gpu are too old to give a job its standard input: upgrade them"
OLD_FOR_FILES = "the agents of queue gpu are too old to know a job's artifacts: upgrade them"


def job(
    queue: str = "gpu",
    stdin_bytes: int | None = None,
    due_ms: int | None = None,
    retries: int = 0,
    artifacts: tuple[str, ...] = (),
    **tags: str,
) -> Job:
    spec = JobSpec(command="true", queue=queue, require=tags, stdin_bytes=stdin_bytes, artifacts=artifacts)
    return Job(id=JobId("j"), state=JobState.SCHEDULED, submitted_ms=NOW_MS, spec=spec, due_ms=due_ms, retries=retries)


def agent(
    *queues: str,
    silent_ms: int | None = 0,
    leases: int = 0,
    trouble: str = "",
    stdin: bool = True,
    knows: tuple[str, ...] = MUST_KNOW,
    name: str = "a",
    **tags: str,
) -> AgentSummary:
    return AgentSummary(
        name=name,
        slots=1,
        leases=leases,
        seen_ms=NOW_MS,
        silent_ms=silent_ms,
        queues=queues,
        tags=tags,
        trouble=trouble,
        stdin=stdin,
        knows=knows,
    )


def other(number: int, state: JobState = JobState.SCHEDULED, **more: Any) -> JobSummary:
    more = {"id": JobId(str(number)), "queue": "gpu", "started_ms": NOW_MS - 1_000 * number, **more}
    return JobSummary(state=state, submitted_ms=number, command="true", **more)


ENDED = [other(took, JobState.COMPLETED, started_ms=NOW_MS, finished_ms=NOW_MS + took) for took in (6_000, 1, 60_000)]


def queue(mode: QueueMode) -> QueueSummary:
    return QueueSummary(queue="gpu", mode=mode, waiting=1, running=0)


def seen(*agents: AgentSummary, **more: Any) -> Seen:
    return Seen(now_ms=NOW_MS, agents=agents, **more)


@pytest.mark.parametrize(
    ("waiting", "known", "cause", "text"),
    [
        (job(due_ms=DUE_MS), seen(queue=queue(QueueMode.PAUSED)), Cause.NOT_DUE, f"it starts {DUE}"),
        (job(due_ms=DUE_MS, retries=2), seen(agent("gpu")), Cause.RETRY_PAUSE, f"it failed, and retry 2 starts {DUE}"),
        (job(), seen(agent("gpu"), queue=queue(QueueMode.PAUSED)), Cause.QUEUE_PAUSED,
         "queue gpu is paused, until `airunner resume gpu`"),
        (job(), seen(), Cause.NO_AGENT, "no agent serves queue gpu; no agent is there"),
        (job(), seen(agent("default"), agent("b", "a")), Cause.NO_AGENT,
         "no agent serves queue gpu; agents serve: a, b, default"),
        (job(), seen(agent(*"abcdefghij")), Cause.NO_AGENT,
         "no agent serves queue gpu; agents serve: a, b, c, d, e, f, g, h, …"),
        (job(), seen(agent("gpu", silent_ms=SILENT_MS), other_brokers=True), Cause.NO_AGENT,
         f"no agent serves queue gpu; no agent is there{OTHER_BROKERS}"),
        (job(), seen(agent("gpu", silent_ms=None)), Cause.TURN, "a may start it at any moment"),
        (job(), seen(agent("default"), agent("gpu"), ahead=[other(1)], queue=queue(QueueMode.DRAINING)), Cause.TURN,
         f"1 job is ahead (1); a may start it at any moment{DRAINS}"),
        (job(), seen(agent(), agent("default")), Cause.UNKNOWN,
         "the broker does not know yet which queues its agents serve"),
        (job(arch="arm", os="linux"), seen(agent("gpu", os="linux"), agent("b", arch="arm", os="linux")),
         Cause.TAGS_MISSING,
         "no agent of queue gpu has the tags that the job requires: arch=arm os=linux; the nearest, a, lacks arch=arm"),
        (job(arch="arm"), seen(agent("gpu", arch="x86")), Cause.TAGS_MISSING,
         "no agent of queue gpu has the tags that the job requires: arch=arm"),
        (job(arch="arm"), seen(agent("gpu", arch="arm", os="linux")), Cause.TURN, "a may start it at any moment"),
        (job(stdin_bytes=7), seen(agent("gpu", stdin=False), agent("b")), Cause.AGENTS_TOO_OLD, TOO_OLD),
        (job(artifacts=("dist",)), seen(agent("gpu", knows=("tree",)), agent("b")),
         Cause.AGENTS_TOO_OLD, OLD_FOR_FILES),
        (job(stdin_bytes=7), seen(agent("gpu", stdin=False), agent("gpu", trouble="out of disk")),
         Cause.AGENTS_IN_TROUBLE, "the agents of queue gpu can run no jobs now: out of disk"),
        (job(), seen(agent("gpu", trouble="out of disk"), agent("gpu", leases=1, silent_ms=SILENT_MS), ahead=[]),
         Cause.SLOTS_BUSY, "it is next; the only slot of a is busy"),
        (job(), seen(agent("gpu", leases=1), agent("gpu", leases=1),
                     ahead=[other(1, name="lint"), *map(other, (2, 3, 4))],
                     running=[other(9, RUNNING, owner="ada"), other(8, RUNNING, owner="b"),
                              other(7, RUNNING, owner="ada"), other(99, RUNNING, queue="b", owner="eve")]),
         Cause.SLOTS_BUSY,
         f"4 jobs are ahead (lint, 2, 3, …); {BUSY} with jobs of ada (2), b (1), the longest for 9.0 s"),
        (job(), seen(agent("gpu"), ahead=[other(1, require={"os": "mac"})]), Cause.TURN,
         "it is next; a may start it at any moment"),
        (job(), seen(agent("gpu", leases=1), running=[other(1, RUNNING)]), Cause.SLOTS_BUSY,
         "the only slot of a is busy with jobs of queue gpu (1), the longest for 1.0 s"),
    ],
)  # fmt: skip
def test_the_cause_why_a_job_waits_is_said_in_a_line(waiting: Job, known: Seen, cause: Cause, text: str) -> None:
    why = why_waiting(waiting, known)
    assert (why.cause, why.text) == (cause, text)
    assert bool(why.commands) is (cause is not Cause.TURN)


@pytest.mark.parametrize(
    ("ahead", "agents", "elapsed_s", "when"),
    [
        (1, 1, (1,), "it may start in about 11.0 s"),
        (1, 2, (2, 9), "it may start in about 10.0 s"),
        (3, 2, (1,), "it may start in about 12.0 s"),
        (0, 1, (6,), "it may start soon"),
        (1, 1, (9,), ""),
    ],
)
def test_when_a_slot_is_free_is_estimated_by_what_the_last_jobs_took(
    ahead: int, agents: int, elapsed_s: tuple[int, ...], when: str
) -> None:
    running = [other(number, RUNNING) for number in elapsed_s]
    busy = [agent("gpu", leases=1)] * agents
    known = seen(*busy, ahead=[other(number) for number in range(ahead)], running=running, ended=ENDED)
    took = "the queue's last 3 jobs took 6.0 s"
    said = f"; {when}, as {took}" if when else f"; {took}, and those that run take longer"
    assert why_waiting(job(), known).text.endswith(said)


def test_jobs_of_a_higher_priority_and_older_ones_of_the_same_are_ahead() -> None:
    mine = job()
    older = [other(7, priority=-1), other(6), other(5, due_ms=DUE_MS)]
    assert [job.id for job in ahead_of(mine, [other(9, priority=5), other(8), other(0, id=mine.id), *older])] == [
        "9",
        "6",
    ]


def message(body: GitCloneError | ProcessError | Output) -> Event:
    return Event(job_id=JobId("j"), sequence=1, attempt=0, body=body)


GIT = message(GitCloneError(timestamp_ms=0, message="Cloning into x\nfatal: no such ref\nhint: look elsewhere\n"))
LOST = message(ProcessError(timestamp_ms=0, message="nope:\x1b command not found"))


@pytest.mark.parametrize(
    ("result", "log", "words"),
    [
        (Result(exit_code=7, reason=Reason.EXIT_CODE), [LOST], "its command ended with exit code 7"),
        (Result(exit_code=143), [],
         "its command ended with exit code 143, a shell's number for signal 15, SIGTERM (Terminated)"),
        (Result(exit_code=127), [], "its command ended with exit code 127, by convention: a program was not found"),
        (Result(signal=9, reason=Reason.SIGNAL), [], "its command was ended by signal 9, SIGKILL (Killed)"),
        (Result(signal=40, reason=Reason.SIGNAL), [], "its command was ended by signal 40"),
        (Result(signal=15, reason=Reason.TIMEOUT), [], "its command ran longer than its timeout of 1 min 00 s"),
        (Result(signal=9, reason=Reason.OUT_OF_MEMORY, usage=Usage(memory_peak_bytes=3 << 29)), [],
         "the kernel killed one of its processes for lack of memory; the largest had 1.5 GiB"),
        (Result(reason=Reason.CHECKOUT_FAILED), [LOST, GIT], "the checkout failed: fatal: no such ref"),
        (Result(exit_code=127, reason=Reason.COMMAND_NOT_FOUND), [LOST],
         r"its command could not be started: nope:\x1b command not found"),
        (Result(reason=Reason.AGENT_LOST), [], "3 agents were lost while it ran, the last of them build-7"),
        (Result(reason=Reason.EXPIRED), [], "no agent began it before it expired"),
        (Result(reason=Reason("bad-weather")), [], "bad-weather"),
        (Result(reason=Reason.CANCELLED), [], "cancelled at 1970-01-12T13:46:40Z"),
        (Result(exit_code=0), [], ""),
    ],
)  # fmt: skip
def test_why_a_job_failed_is_said_in_words(result: Result, log: list[Event], words: str) -> None:
    ended = Job(
        id=JobId("j"),
        state=result.state,
        submitted_ms=0,
        spec=JobSpec(command="true", timeout_seconds=60, max_attempts=3),
        result=result,
        agent="build-7",
        cancel_requested_ms=NOW_MS,
    )
    assert why_failed(ended, log) == words


def test_the_last_line_of_output_is_what_a_terminal_would_show() -> None:
    pieces = [b"one\n\x1b[1;32mtw", b"o\x1b[0m\r50 %\r\n \n"]
    log = [message(Output(timestamp_ms=0, stream=Stream.STDOUT, data=piece)) for piece in pieces]
    assert (last_line(log), last_line([])) == ("50 %", "")
