"""What is seen of a process: all that it writes, who outlives it, and who else holds its output open."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from airunner.agent.attempt.supervisor import CommandEnd, Supervisor
from airunner.agent.launcher.attending import attended
from airunner.agent.launcher.contract import Process
from airunner.agent.launcher.local import ChildLauncher
from airunner.agent.leases.heldlease import HeldLease
from airunner.agent.output.recorder import Recorder
from airunner.protocol.events import AgentBody, Output, ProcessError, Stream, TerminalResize
from airunner.protocol.fields import JobSpec, TerminalSize
from airunner.protocol.job import Reason
from airunner.protocol.names import JobId
from airunner.protocol.replies import JobLease
from tests.agent.launcher.launching import shell

GRACE_S = 0.05
LEASE = JobLease(
    job_id=JobId("a job"), attempt=1, task_token=bytes(32), visibility_ms=3_000, spec=JobSpec(command="true")
)


@contextmanager
def daemon_with_stdout_of(process: Process) -> Iterator[int]:
    """A process that is not of the job and has its stdout, as a container's runtime has."""
    with Path(f"/proc/{process.pid}/fd/1").open("wb") as stdout:
        daemon = subprocess.Popen(("sleep", "1000"), stdout=stdout)
    with daemon:
        yield daemon.pid
        daemon.kill()


class Page(Recorder):
    """A recorder on no disk."""

    def __init__(self) -> None:
        self.bodies: list[AgentBody] = []

    def add(self, body: AgentBody) -> None:
        self.bodies.append(body)

    async def add_output(self, stream: Stream, data: bytes, timestamp_ms: int) -> None:
        self.bodies.append(Output(stream=stream, data=data, timestamp_ms=timestamp_ms))

    def holds_character(self, stream: Stream) -> bool:
        """Nothing is withheld."""
        return stream not in Stream

    def end_output(self, timestamp_ms: int) -> None:
        """Nothing is withheld."""

    @property
    def output(self) -> bytes:
        return b"".join(body.data for body in self.bodies if isinstance(body, Output))

    @property
    def words(self) -> list[str]:
        return [body.message for body in self.bodies if isinstance(body, ProcessError)]


async def seen(
    process: Process, timeout_s: float | None = None, terminal: TerminalSize | None = None
) -> tuple[CommandEnd, Page]:
    """How it ended, and what is in the log of it."""
    page = Page()
    supervisor = Supervisor(HeldLease(LEASE, anyio.current_time(), 1_000), page, lambda: 1, GRACE_S)
    async with attended(process):
        return await supervisor.supervise(process, timeout_s, terminal=terminal), page


async def test_who_outlives_the_command_is_named(launcher: ChildLauncher) -> None:
    ended, page = await seen(await launcher.launch(shell("sleep 1001 & (setsid sleep 1002 &) ; echo done")))
    assert (ended.exit.exit_code, page.output) == (0, b"done\n")
    [word] = page.words
    assert word.startswith("the command has ended; these")
    assert "sleep 1001" in word
    assert "sleep 1002" in word


async def test_of_many_that_outlive_the_command_50_are_named(launcher: ChildLauncher) -> None:
    _, page = await seen(await launcher.launch(shell("for n in $(seq 53); do sleep 1001 & done")))
    [word] = page.words
    assert (word.count("sleep 1001"), word.splitlines()[-1]) == (50, "  and 3 more")


async def test_who_outlives_the_grace_is_named(launcher: ChildLauncher) -> None:
    process = await launcher.launch(shell("(trap '' TERM; while :; do sleep 1003; done) & wait"))
    ended, page = await seen(process, timeout_s=0.2)
    assert ended.cut_short is Reason.TIMEOUT
    [word] = page.words
    assert word.startswith("these processes had not ended 0.05 s after SIGTERM, and were killed:")


async def test_whoever_holds_the_output_open_is_named_and_not_waited_for(
    launcher: ChildLauncher, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "go")
    process = await launcher.launch(shell(f"read -r _ < {tmp_path}/go; echo from the job"))
    with daemon_with_stdout_of(process) as daemon:
        (tmp_path / "go").write_text("\n")
        ended, page = await seen(process)
    assert ended.exit.exit_code == 0
    assert page.output == b"from the job\n"
    [word] = page.words
    assert word.startswith("stopped reading output")
    assert f"  {daemon} " in word


async def test_a_terminal_tells_its_size_and_each_change(launcher: ChildLauncher) -> None:
    size = TerminalSize(cols=101, rows=33)
    process = await launcher.launch(shell("echo a; stty cols 55 rows 22; echo b", terminal=size))
    ended, page = await seen(process, terminal=size)
    assert ended.exit.exit_code == 0
    sizes = [(body.cols, body.rows) for body in page.bodies if isinstance(body, TerminalResize)]
    assert sizes == [(101, 33), (55, 22)]
    assert isinstance(page.bodies[0], TerminalResize)
