"""What a chaos run has come to: every accepted job, every log, every monitor's view, and what still runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
from msgspec import Struct

from airunner import Client, Event, Job, JobState, NotFound, Stream
from airunner.certs.channel import Patience
from airunner.protocol.events import JobFinished, Output
from tests.acceptance.chaos_users import expected_output, fingerprint

SHOWN_MAX: Final = 10  # of each kind of finding


class Findings:
    """What was counted and what should not be."""

    def __init__(self, accepted: int) -> None:
        self.accepted = accepted
        self._wrong: dict[str, list[str]] = {}
        self._notes: list[str] = []

    @property
    def clean(self) -> bool:
        return self.accepted > 0 and not any(self._wrong.values())

    def add(self, what: str, found: Iterable[str]) -> None:
        self._wrong.setdefault(what, []).extend(found)

    def note(self, line: str) -> None:
        self._notes.append(line)

    def lines(self) -> list[str]:
        lines = [f"{'jobs accepted':<24}{self.accepted}", *self._notes]
        for what, found in self._wrong.items():
            lines.append(f"{what:<24}{len(found)}")
            lines += [f"    {one}" for one in found[:SHOWN_MAX]]
        return lines


class JobProcess(Struct, frozen=True):
    """A process of a job of this run."""

    pid: int
    job_id: str
    attempt: int
    command: str

    @property
    def alive(self) -> bool:
        """Whether it still is that job's and no zombie."""
        return _variables(self.pid).get("AIRUNNER_JOB_ID") == self.job_id

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def job_processes(home: Path) -> list[JobProcess]:
    """Every process whose environment says that an agent of this home started it."""
    found: list[JobProcess] = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        pid = int(folder.name)
        variables = _variables(pid)
        if variables.get("AIRUNNER_WORKSPACE", "").startswith(str(home)):
            with suppress(OSError):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                attempt = int(variables["AIRUNNER_ATTEMPT"])
                found.append(JobProcess(pid, variables["AIRUNNER_JOB_ID"], attempt, command))
    return found


def _variables(pid: int) -> dict[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (pair.partition(b"=") for pair in raw.split(b"\0"))
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, _, value in pairs}


async def judge(folder: Path, accepted: Collection[str], drain_s: float) -> Findings:
    """Wait for the end of every job, and hold each to what was promised."""
    findings = Findings(len(accepted))
    for what in ("lost", "finished twice", "logs with a hole", "wrong output", "wrong views"):
        findings.add(what, [])
    logs: dict[str, list[Event]] = {}
    async with Client(patience=Patience()) as client:
        with anyio.move_on_after(drain_s):
            for job_id in accepted:
                with suppress(NotFound):
                    async with client.follow(job_id) as events:
                        logs[job_id] = [event async for event in events]
        for job_id in accepted:
            try:
                job = await client.get(job_id)
            except NotFound:
                findings.add("lost", [f"{job_id}: accepted, and not there"])
                continue
            stored = [event async for event in client.replay(job_id)]
            logs[job_id] = stored
            _judge_job(job, stored, findings)
    _judge_views(folder, logs, findings)
    return findings


def _judge_job(job: Job, log: list[Event], findings: Findings) -> None:
    if not job.state.terminal:
        findings.add("lost", [f"{job.id}: {job.state} after the drain"])
        return
    ends = [event.body for event in log if isinstance(event.body, JobFinished)]
    if len(ends) != 1 or ends[0].state is not job.state or not isinstance(log[-1].body, JobFinished):
        findings.add("finished twice", [f"{job.id}: {len(ends)} ends, {job.state}"])
    if [event.sequence for event in log] != list(range(1, job.last_sequence + 1)):
        findings.add("logs with a hole", [f"{job.id}: {[event.sequence for event in log][:50]}"])
    code = int(job.spec.metadata["code"])
    lost = job.result is not None and job.result.reason == "agent-lost"
    if not lost and (job.state is JobState.COMPLETED) != (code == 0):
        findings.add("wrong output", [f"{job.id}: {job.state}, and its command exits with {code}"])
    if lost:
        return
    last = [event.body for event in log if event.attempt == job.attempt]
    said = b"".join(body.data for body in last if isinstance(body, Output) and body.stream is Stream.STDOUT)
    if said != expected_output(job.id, int(job.spec.metadata["lines"])):
        findings.add("wrong output", [f"{job.id}: {len(said)} bytes of attempt {job.attempt} are not what it wrote"])


def _judge_views(folder: Path, logs: dict[str, list[Event]], findings: Findings) -> None:
    """Each follow saw, from where it began, the first events of the final log, each once; a torn line was not shown."""
    views = 0
    for path in folder.glob("*.seen"):
        whole, _, _ = path.read_text().rpartition("\n")
        head, *lines = whole.splitlines() or [""]
        if not head:
            continue
        views += 1
        job_id, first = head.split()
        log = {event.sequence: fingerprint(event) for event in logs.get(job_id, [])}
        for offset, line in enumerate(lines):
            sequence = int(first) + offset
            if line != f"{sequence} {log.get(sequence)}":
                findings.add("wrong views", [f"{path.name}: {line!r} at place {sequence} of {job_id}"])
                break
    findings.note(f"{'views of monitors':<24}{views}")
