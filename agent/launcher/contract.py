"""Launcher contract: what the agent requires of a launcher and its processes. Fakes in tests keep it too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from msgspec import Struct

from airunner.agent.launcher.refusal import MachineRefused, Scarce
from airunner.protocol.fields import TerminalSize

RECEIVE_BYTES: Final = 65_536  # the most that a pipe holds, unless it was enlarged


class LaunchSpec(Struct, frozen=True):
    """Specification of a process: with pipes, or in a terminal of the size `terminal`.

    The environment is all that it gets; `working_directory` is absolute. `user`: the ids of the user that it runs as,
    of its group and of its further groups; empty: the agent's own.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    working_directory: Path
    terminal: TerminalSize | None = None
    user: tuple[int, ...] = ()


class Exit(Struct, frozen=True):
    """Exit of a command: its exit code or signal, and whether the job was out of memory, where that is known."""

    exit_code: int | None
    signal: int | None
    oom: bool = False


class Spent(Struct, frozen=True):
    """Resources that a job's processes have used: processor time, the memory of the largest, disk bytes."""

    cpu_user_ms: int = 0
    cpu_system_ms: int = 0
    memory_peak_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


class Vitals(Struct, frozen=True):
    """Living processes of a job and their memory; 0: it cannot be seen."""

    processes: int = 0
    memory_bytes: int = 0


class Survivor(Struct, frozen=True):
    """Surviving process: it outlived the command's own end, or the grace of a job that was cut short.

    `left`: SIGKILL has not ended it within seconds; it hangs in the kernel or belongs to another user.
    """

    pid: int
    command: str
    left: bool = False


class Holder(Struct, frozen=True):
    """Process outside the job that holds a pipe or the terminal of the job open."""

    pid: int
    command: str


class LaunchFailed(Exception):
    """Failure of a launch: the command or its working directory cannot be used.

    `exit_code` is what a shell would say: 127 not found, 126 found and not usable.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class LauncherDied(Exception):
    """Launcher or keeper was killed, and every process of the job with it."""


class NoLauncher(MachineRefused):
    """Launcher missing: nothing can be started now, and nothing of this job was; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__(Scarce.PROCESSES, message)


class LeaseEnded(Exception):
    """Lease deadline passed: every process of the job has been killed, or none was started. The result is unknown."""


class ByteSource(Protocol):
    """Source of bytes: what a process writes."""

    async def receive(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """Receive at least one byte, as soon as there is one; b"" at the end and ever after."""
        ...

    def close(self) -> None:
        """Stop reading; a process that goes on writing gets SIGPIPE, or SIGHUP from its terminal."""
        ...


class Process(Protocol):
    """Process tree of one job: its command and whatever that starts.

    Read its sources until b"", but never wait for that before `end`: a background process may hold them open.
    """

    pid: int  # of the command, also its session's and process group's id
    stdout: ByteSource  # in a terminal, all that appears there
    stderr: ByteSource | None  # None in a terminal
    spent: Spent  # by its processes that are gone; after `end` all are

    def terminal_size(self) -> TerminalSize | None:
        """Return its terminal's current size; None without one, after its end, or for a size no terminal has."""
        ...

    async def vitals(self) -> Vitals | None:
        """Count its living processes and their memory; None where the command has ended."""
        ...

    async def holders(self) -> list[Holder]:
        """List the visible processes that hold open what has not been read to its end."""
        ...

    async def wait(self) -> Exit:
        """Wait for the command's own end; other processes of its tree may live on. Any number of tasks may wait.

        Raises `LauncherDied`, `LeaseEnded`.
        """
        ...

    def keep_until(self, deadline_s: float) -> None:
        """Move the instant (CLOCK_BOOTTIME, seconds) at which all of the job is killed, whatever became of the agent.

        After the job's end nothing happens. A deadline that does not get through leaves the old one standing.
        """
        ...

    async def end(self, grace_s: float) -> list[Survivor]:
        """End all processes of the job: SIGTERM to all, SIGKILL after `grace_s` to what is left, until none is.

        Owed after every `wait`, and the way to cut a job short; a second call may shorten the grace. Cancelled, it
        kills at once and is over when nothing is left. The survivors are the processes that outlived the command or,
        where that still ran, the grace. Raises `LauncherDied`, `LeaseEnded`.
        """
        ...

    def close(self) -> None:
        """Release line and descriptors; where `end` has not finished, all processes are killed at once."""
        ...


class Launcher(Protocol):
    """Launcher of processes."""

    async def launch(self, spec: LaunchSpec, deadline_s: float = math.inf) -> Process:
        """Start a command, to be kept until `deadline_s` as in `Process.keep_until`. Cancelled, it leaves no process.

        Raises `LaunchFailed`, `LauncherDied`, `MachineRefused`; after the deadline `LeaseEnded`, without having
        started it.
        """
        ...


class Starter(Protocol):
    """Launcher as one attempt sees it: nothing that it starts outlives the attempt's lease."""

    async def launch(self, spec: LaunchSpec) -> Process:
        """Start a command. Cancelled, it leaves no process. Raises as `Launcher.launch`."""
        ...
