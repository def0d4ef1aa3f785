"""What is seen of a process: all that it writes, who outlives it, and who else holds its output open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from airunner.agent.attempt.supervisor import CommandEnd, Supervisor
from airunner.agent.launcher.attending import attended
from airunner.agent.launcher.contract import LaunchSpec
from airunner.agent.launcher.local import ChildLauncher
from airunner.agent.leases.heldlease import HeldLease
from airunner.agent.output.recorder import Recorder
from airunner.protocol.events import AgentBody, Output, ProcessError, Stream, TerminalResize
from airunner.protocol.fields import JobSpec, TerminalSize
from airunner.protocol.job import Reason
from airunner.protocol.names import JobId
from airunner.protocol.replies import JobLease
from tests.agent.launcher.launching import command, shell

GRACE_S = 0.05
LEASE = JobLease(
    job_id=JobId("a job"), attempt=1, task_token=bytes(32), visibility_ms=3_000, spec=JobSpec(command="true")
)


DAEMON = """
import socket, sys
with socket.socket(socket.AF_UNIX) as door:
    door.bind(sys.argv[1])
    door.listen()
    print("ready", flush=True)
    line, _ = door.accept()
    _, held, _, _ = socket.recv_fds(line, 1, 1)
    line.sendall(b"!")
    sys.stdin.read()
"""
HAND_OVER = """
import socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect(sys.argv[1])
    socket.send_fds(line, [b"."], [1])
    line.recv(1)
"""


@contextmanager
def handed_to_a_daemon(folder: Path) -> Iterator[tuple[tuple[str, ...], int]]:
    """A command that hands its stdout to a process which is not of its job, and that process."""
    door = str(folder / "door")
    daemon = subprocess.Popen(
        (sys.executable, "-c", DAEMON, door), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "ready\n"
        yield (sys.executable, "-c", HAND_OVER, door), daemon.pid


class Page(Recorder):
    """A recorder on no disk."""

    def __init__(self) -> None:
        self.bodies: list[AgentBody] = []

    def add(self, body: AgentBody) -> None:
        self.bodies.append(body)

    async def add_output(self, stream: Stream, data: bytes, timestamp_ms: int) -> None:
        self.bodies.append(Output(stream=stream, data=data, timestamp_ms=timestamp_ms))

    def end_output(self, timestamp_ms: int) -> None:
        """Nothing is withheld."""

    @property
    def output(self) -> bytes:
        return b"".join(body.data for body in self.bodies if isinstance(body, Output))

    @property
    def words(self) -> list[str]:
        return [body.message for body in self.bodies if isinstance(body, ProcessError)]


async def seen(launcher: ChildLauncher, spec: LaunchSpec, timeout_s: float | None = None) -> tuple[CommandEnd, Page]:
    """How it ended, and what is in the log of it."""
    page = Page()
    supervisor = Supervisor(HeldLease(LEASE, anyio.current_time(), 1_000), page, lambda: 1, GRACE_S)
    process = await launcher.launch(spec)
    async with attended(process):
        return await supervisor.supervise(process, timeout_s, terminal=spec.terminal), page


async def test_who_outlives_the_command_is_named(launcher: ChildLauncher) -> None:
    ended, page = await seen(launcher, shell("sleep 1001 & (setsid sleep 1002 &) ; echo done"))
    assert (ended.exit.exit_code, page.output) == (0, b"done\n")
    [word] = page.words
    assert word.startswith("the command has ended; these")
    assert "sleep 1001" in word
    assert "sleep 1002" in word


async def test_who_outlives_the_grace_is_named(launcher: ChildLauncher) -> None:
    ended, page = await seen(launcher, shell("(trap '' TERM; while :; do sleep 1003; done) & wait"), timeout_s=0.2)
    assert ended.cut_short is Reason.TIMEOUT
    [word] = page.words
    assert word.startswith("these processes had not ended 0.05 s after SIGTERM, and were killed:")


async def test_whoever_holds_the_output_open_is_named_and_not_waited_for(
    launcher: ChildLauncher, tmp_path: Path
) -> None:
    """A daemon of the machine was handed the job's stdout, as a container's runtime is."""
    with handed_to_a_daemon(tmp_path) as (hand_over, daemon):
        ended, page = await seen(launcher, command("sh", "-c", 'echo from the job; exec "$@"', "sh", *hand_over))
        assert ended.exit.exit_code == 0
        assert page.output == b"from the job\n"
        [word] = page.words
        assert word.startswith("stopped reading output")
        assert f"  {daemon} " in word


async def test_a_terminal_tells_its_size_and_each_change(launcher: ChildLauncher) -> None:
    size = TerminalSize(cols=101, rows=33)
    ended, page = await seen(launcher, shell("echo a; stty cols 55 rows 22; echo b", terminal=size))
    assert ended.exit.exit_code == 0
    sizes = [(body.cols, body.rows) for body in page.bodies if isinstance(body, TerminalResize)]
    assert sizes == [(101, 33), (55, 22)]
    assert isinstance(page.bodies[0], TerminalResize)
