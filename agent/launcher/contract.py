"""Launcher contract: the protocols and types through which the agent uses a launcher. Fakes in tests follow it too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from signal import Signals
from typing import Final, Protocol

from msgspec import Struct

from airunner.agent.launcher.refusal import MachineRefused, Scarce
from airunner.protocol.fields import TerminalSize

SHORT_S: Final = 0.01  # `LaunchSpec.short_s` of commands whose start nobody waits to read
RECEIVE_BYTES: Final = 65_536  # bytes read at a time: the default size of a pipe


class LaunchSpec(Struct, frozen=True):
    """Specification of a process. If `terminal` is set, it runs in a terminal of that size, otherwise with pipes.

    The process gets the variables in `environment`, and AIRUNNER_MARK. `working_directory` is absolute. `user` is its
    user id, group id and supplementary group ids; empty: those of the agent. `merged`: its stderr is its stdout's pipe.
    `stdin` is a file with its standard input, also in a terminal; the launcher removes the file. None: /dev/null, or
    the terminal. `short_s`: how long the launch may wait for the end of a command that is probably short, so that
    its start and its end are one message; it has no effect in a terminal.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    working_directory: Path
    terminal: TerminalSize | None = None
    user: tuple[int, ...] = ()
    merged: bool = False
    stdin: Path | None = None
    short_s: float = 0.0


class Exit(Struct, frozen=True):
    """Exit of a command: exit code or signal. `oom`: it failed, and the kernel has killed a process to free memory."""

    exit_code: int | None
    signal: int | None
    oom: bool = False


class Spent(Struct, frozen=True):
    """Resources that a job's processes have used: processor time, peak memory of the largest, disk bytes."""

    cpu_user_ms: int = 0
    cpu_system_ms: int = 0
    memory_peak_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


class Vitals(Struct, frozen=True):
    """Vitals of a job: the number of its living processes, and their resident memory, as far as the agent can see."""

    processes: int = 0
    memory_bytes: int = 0


class Survivor(Struct, frozen=True):
    """Surviving process: it still ran after the command's exit or, if the job was ended earlier, after the grace.

    `left`: SIGKILL has not ended it within seconds, because it hangs in the kernel or belongs to another user. Only
    then is the command itself a survivor.
    """

    pid: int
    command: str
    left: bool = False


class Holder(Struct, frozen=True):
    """Process that still holds a pipe or the terminal of a job open."""

    pid: int
    command: str


class LaunchFailed(Exception):
    """Failure of a launch: the command or its working directory cannot be used.

    `exit_code` is that of a shell: 127 if the command or its interpreter was not found, otherwise 126.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class LauncherDied(Exception):
    """Launcher or keeper died, or the launcher was closed; every process of the job was killed, or none started."""

    def __init__(self, message: str = "the agent's launcher or the job's keeper died") -> None:
        super().__init__(message)


class NoLauncher(MachineRefused):
    """Launcher missing: no process can be started; the message says why, and what to do. A probe starts a process."""

    def __init__(self, message: str) -> None:
        super().__init__(Scarce.PROCESSES, message)

    @property
    def trouble(self) -> str:
        """The message: the machine lacks nothing."""
        return self.message


class LeaseEnded(Exception):
    """Lease deadline passed: every process of the job has been killed, or none was started. The result is unknown."""


class ByteSource(Protocol):
    """Source of bytes: the stdout, stderr or terminal of a process."""

    async def receive(self, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """Wait for at least one byte, and return what has arrived; b"" at the end, and in every later call."""
        ...

    def close(self) -> None:
        """Stop reading; a process that goes on writing gets SIGPIPE, or SIGHUP from its terminal."""
        ...


class Process(Protocol):
    """Process tree of one job: its command, and all processes that the command has started.

    Read the sources until b"", but call `end` without waiting for that: a background process may hold them open.
    """

    pid: int  # id of the command's process, session and process group
    stdout: ByteSource  # in a terminal or if merged, all output
    stderr: ByteSource | None  # None in a terminal or if merged
    ran_s: float | None  # how long the command ran, if no process of the job was left when it was launched; else None
    spent: Spent  # after `wait`: resources used by the processes that have ended; after `end`: by all

    def terminal_size(self) -> TerminalSize | None:
        """Return the terminal's current size; None: there is no open terminal, or its size is out of bounds."""
        ...

    def resize(self, size: TerminalSize) -> None:
        """Set the size of its terminal, whose programs get SIGWINCH; without an open terminal this does nothing."""
        ...

    async def vitals(self) -> Vitals | None:
        """Count the living processes and their memory; None: the command has ended."""
        ...

    async def holders(self) -> list[Holder]:
        """List the visible processes that hold open a pipe or terminal which has not been read to its end."""
        ...

    async def wait(self) -> Exit:
        """Wait for the command's exit; other processes of its tree may still run. Any number of tasks may wait.

        Raises `LauncherDied`, `LeaseEnded`.
        """
        ...

    def keep_until(self, deadline_s: float) -> None:
        """Set the instant (CLOCK_BOOTTIME, seconds) at which the whole job is killed, even if the agent is stopped.

        After the job's end the call does nothing. If the message is lost, the previous deadline remains.
        """
        ...

    async def end(self, grace_s: float, number: Signals = Signals.SIGTERM) -> list[Survivor]:
        """End all processes of the job: signal `number`, SIGKILL after `grace_s`; with a grace of 0 only SIGKILL.

        Each process gets signal `number` once; one that ignores it gets SIGTERM instead. What a process starts after
        that, to clean up, gets it only when that process has ended.
        Call it after every `wait`, or to end a running job; a second call may shorten the grace. If cancelled, it first
        kills all processes. Returns the survivors, when no process is left or SIGKILL has failed for seconds. Raises
        `LauncherDied`, `LeaseEnded`.
        """
        ...

    def close(self) -> None:
        """Close connection and descriptors; if `end` has not finished, all processes are killed at once."""
        ...


class Launcher(Protocol):
    """Launcher of processes."""

    async def launch(self, spec: LaunchSpec, deadline_s: float = math.inf) -> Process:
        """Start a command, which is killed at `deadline_s` (see `keep_until`).

        If cancelled, leave no process, or return one that has started meanwhile, and that the caller ends.
        Raises `LaunchFailed`, `LauncherDied`, `MachineRefused`; `LeaseEnded`: the deadline had passed already.
        """
        ...


class Starter(Protocol):
    """Launcher of one attempt: no process that it starts outlives the attempt's lease."""

    async def launch(self, spec: LaunchSpec) -> Process:
        """Start a command. A cancellation and errors are as in `Launcher.launch`."""
        ...
