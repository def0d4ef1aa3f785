"""Local launcher: the agent's `Launcher`, which uses the launcher process and its keepers on this machine."""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final, NoReturn

import anyio
import anyio.lowlevel

from airunner.agent.launcher.child import wire
from airunner.agent.launcher.child.cgroup import Limits, end_groups, launchers_group, missing_controllers, own_group
from airunner.agent.launcher.child.wire import (
    DESCRIPTORS_MAX,
    Expired,
    Failed,
    Ran,
    Ready,
    Start,
    Started,
    ToAgent,
    send_with,
)
from airunner.agent.launcher.connection import KeeperConnection
from airunner.agent.launcher.contract import LauncherDied, LaunchFailed, LaunchSpec, LeaseEnded, NoLauncher, Process
from airunner.agent.launcher.ended import EndedProcess
from airunner.agent.launcher.launcherprocess import LauncherProcess, LauncherSettings, spawn_launcher
from airunner.agent.launcher.mark import VARIABLE, end_marked, new_home_mark
from airunner.agent.launcher.offloading import offload
from airunner.agent.launcher.process import KeptProcess
from airunner.agent.launcher.refusal import MachineRefused, Scarce, scarce_at_launch
from airunner.agent.launcher.watchdog import KeeperProcess
from airunner.protocol.errors import OperatorError
from airunner.transport.bell import Bell
from airunner.transport.descriptors import soft_descriptors

NO_LIMITS: Final = Limits()
WIRE: Final = Path(wire.__file__)  # after an upgrade has changed this file, a new launcher would not understand us
WAKE_S: Final = 5.0  # seconds until launcher and keeper are continued (SIGCONT): an answer to Start takes milliseconds
LAUNCH_S: Final = 30.0  # further seconds until a keeper that does not answer is killed: a slow disk may need them
KEEPERS_S: Final = 2.0  # seconds for a dead launcher's keepers to end their jobs; a stopped keeper takes longer
KILL_S: Final = 5.0  # seconds for processes to die of SIGKILL; only those that hang in the kernel take longer
HANGS: Final = (
    f"the command was not started within {WAKE_S + LAUNCH_S:g} s: its working directory, or a folder on PATH, is on a "
    "disk that does not answer"
)
CLOSE_WAIT_S: Final = 5.0  # seconds for the launcher to kill all processes and exit, in `aclose`


def start_launcher(
    held: Sequence[int] = (), limits: Limits = NO_LIMITS, mark: str = "", groups: Path | None = None
) -> ChildLauncher:
    """Start the launcher process, before this process raises its limit of open files. Raises `OperatorError`.

    Jobs get that limit as it is now. Launcher and keepers hold the descriptors `held` open, and jobs do not: a lock on
    one of them shows whether launcher or keepers still live. The `limits` apply to each job. All processes' marks
    begin with `mark` (default: a new one). The folder of the launcher's control groups is added to the file `groups`.
    """
    if sys.platform != "linux":
        raise OperatorError("the agent needs Linux: run it there; this machine can still submit and monitor jobs")
    group = own_group()
    missing = limits.controllers if group is None else missing_controllers(group, limits)
    if missing:
        raise OperatorError(
            f"jobs cannot be limited here: the kernel offers this process no control group (version 2) for "
            f"{' and '.join(missing)}; see `airunner doctor`"
        )
    settings = LauncherSettings(tuple(held), group, limits, mark or new_home_mark(), groups, soft_descriptors())
    try:
        return ChildLauncher(settings, spawn_launcher(settings))
    except OSError as error:
        raise OperatorError(f"cannot start the launcher: {error.strerror}") from error


class ChildLauncher:
    """Child launcher: a `Launcher` for one event loop. Keepers are reused: at most as many as commands ran at once.

    When the launcher process dies, its keepers kill their jobs and exit; the next launch starts another launcher.
    """

    def __init__(self, settings: LauncherSettings, spawned: LauncherProcess) -> None:
        self._settings = settings
        self._launcher = spawned
        self._launches = 0
        self._restarted = Bell()
        self._idle: list[KeeperConnection] = []
        self._closed = False
        self._wire = WIRE.read_bytes()

    @property
    def pid(self) -> int:
        """The process id of the launcher."""
        return self._launcher.child.pid

    async def launch(self, spec: LaunchSpec, deadline_s: float = math.inf) -> Process:
        """Start a command as `Launcher.launch` says; it is killed at `deadline_s` (seconds of CLOCK_BOOTTIME)."""
        assert spec.working_directory.is_absolute(), "a relative working directory"
        try:
            connection = self._take_idle() or await self._ask_for_keeper()
            self._launches += 1
            mark = f"{self._launcher.mark}.{self._launches}"
            kill_rest = partial(self._kill_rest, self._launcher, mark)
            answer = await self._answer(connection, _start(spec, deadline_s, mark), kill_rest)
        except OSError as error:
            if (scarce := scarce_at_launch(error.errno or 0)) is None:
                raise
            raise MachineRefused(scarce, f"cannot start a process: {error.strerror}") from error
        match answer:
            case Started(pid):
                descriptors = connection.take_descriptors()
                if len(descriptors) != (1 if spec.merged or spec.terminal else DESCRIPTORS_MAX):
                    connection.close()  # the keeper then kills the command
                    for descriptor in descriptors:
                        os.close(descriptor)
                    raise MachineRefused(Scarce.DESCRIPTORS, "cannot receive the output of a process", begun=True)
                return KeptProcess(pid, descriptors, connection, self._give_back, kill_rest)
            case Ran():
                self._give_back(connection)
                return EndedProcess(answer)
            case Failed(errno, message, exit_code):
                if (scarce := scarce_at_launch(errno)) is not None:
                    connection.close()  # the keeper then exits, which frees a process and descriptors
                    raise MachineRefused(scarce, message)
                self._give_back(connection)
                raise LaunchFailed(message, exit_code)
            case Expired():
                self._give_back(connection)
                raise LeaseEnded
            case other:
                raise AssertionError(f"unexpected message of a keeper: {other}")

    async def watch(self) -> None:
        """Watch the launcher process, for ever: when it dies, kill the keepers and jobs that are left.

        The kernel signals the keepers, but a stopped keeper does not handle the signal.
        """
        while True:
            launcher = self._launcher
            await launcher.ended()
            with anyio.move_on_after(KEEPERS_S):
                await self._replaced(launcher)
            await self._kill_rest(launcher, launcher.mark)
            await self._replaced(launcher)

    async def _replaced(self, launcher: LauncherProcess) -> None:
        """Wait until another launcher process has been started."""
        while self._launcher is launcher:
            await self._restarted.wait()

    def kill(self) -> None:
        """Kill the launcher process, unless it has ended; its keepers then kill their jobs."""
        self._launcher.child.kill()

    async def aclose(self) -> None:
        """Kill every job's processes, and end the launcher. May be called again."""
        if self._closed:
            return
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        launcher = self._launcher
        launcher.hang_up()
        done = False
        if launcher.child.poll() is None:
            os.kill(launcher.child.pid, signal.SIGCONT)
            try:
                with anyio.move_on_after(CLOSE_WAIT_S, shield=True):
                    await launcher.ended()
                    done = True
            finally:
                launcher.child.kill()
                launcher.child.wait()
        if not done:
            await self._kill_rest(launcher, launcher.mark)

    async def _answer(
        self, connection: KeeperConnection, start: Start, kill_rest: Callable[[], Awaitable[None]]
    ) -> ToAgent:
        """Send a Start and return the keeper's answer. On an error the command is killed.

        A keeper that does not answer is killed. A cancellation leaves no command, or returns it.
        Raises `LauncherDied`; `OSError`: no descriptor is free for the output.
        """
        try:
            if connection.keeper is None:
                if not await self._answers(connection, None):
                    self._launcher.child.kill()  # no keeper is ready: the launcher itself does not answer
                match await connection.receive():
                    case Ready(keeper):
                        connection.keeper = KeeperProcess(keeper)
                    case failed:
                        return failed
            connection.reserve()
            await anyio.lowlevel.checkpoint_if_cancelled()
            # From here on the command may run: a cancelled caller gets it, and ends it with a grace.
            if await self._answers(connection, start):
                return await connection.receive()
            await _kill_hanging(connection, connection.keeper)
        except BaseException as error:
            connection.close()
            if isinstance(error, LauncherDied):
                await kill_rest()
            raise

    async def _answers(self, connection: KeeperConnection, start: Start | None) -> bool:
        """Send a Start, if any; return whether an answer comes in time. After `WAKE_S` continue launcher and keeper.

        With a Start, a cancellation does not end the wait.
        """
        shield = start is not None
        with anyio.move_on_after(WAKE_S, shield=shield):
            if start is not None:
                with suppress(LauncherDied):  # `receive` raises it again, after messages that have arrived
                    await connection.send(start)
            await connection.readable()
            return True
        self._launcher.child.send_signal(signal.SIGCONT)  # a job may have stopped it
        if connection.keeper is not None:
            connection.keeper.wake()
        with anyio.move_on_after(LAUNCH_S, shield=shield):
            await connection.readable()
            return True
        return False

    async def _kill_rest(self, launcher: LauncherProcess, mark: str) -> None:
        """Kill processes whose mark begins with `mark` and, if this launcher is dead, those in its control groups."""
        group = self._settings.group if launcher.child.poll() is not None else None

        def end() -> None:
            if group is not None:
                end_groups(launchers_group(group, launcher.child.pid, launcher.mark), KILL_S)
            end_marked(mark, KILL_S)

        with anyio.CancelScope(shield=True):
            await offload(end)

    def _take_idle(self) -> KeeperConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.broken:
                return connection
            connection.close()
        return None

    def _give_back(self, connection: KeeperConnection) -> None:
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)

    async def _ask_for_keeper(self) -> KeeperConnection:
        if self._closed:
            raise LauncherDied
        if self._launcher.child.poll() is not None:
            self._restart()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        connection = KeeperConnection(ours)
        with theirs:
            try:
                while True:
                    try:
                        send_with(self._launcher.connection, b"keeper", [theirs.fileno()])
                    except BlockingIOError:
                        await anyio.wait_writable(self._launcher.connection)
                    else:
                        return connection
            except BaseException as error:
                connection.close()
                if isinstance(error, BrokenPipeError | ConnectionResetError):
                    raise LauncherDied from error
                raise

    def _restart(self) -> None:
        """Replace a launcher process that has died; raises `MachineRefused`, `NoLauncher`."""
        self._launcher.hang_up()
        try:
            if WIRE.read_bytes() != self._wire:
                raise NoLauncher("the launcher has died, and airunner was upgraded meanwhile: restart the agent")
            self._launcher = spawn_launcher(self._settings)
        except OSError as error:
            message = f"the launcher has died, and another cannot be started: {error.strerror}"
            if (scarce := scarce_at_launch(error.errno or 0)) is not None:
                raise MachineRefused(scarce, message) from error
            raise NoLauncher(f"{message}; check that {sys.executable} works, and restart the agent") from error
        self._restarted.ring()


async def _kill_hanging(connection: KeeperConnection, keeper: KeeperProcess) -> NoReturn:
    """Kill a keeper that does not start its command; raises `LauncherDied` when it has died."""
    keeper.kill()
    with anyio.CancelScope(shield=True):
        await connection.readable()
    raise LauncherDied(HANGS)


def _start(spec: LaunchSpec, deadline_s: float, mark: str) -> Start:
    size = spec.terminal
    variables = _raw_each(chain.from_iterable({**spec.environment, VARIABLE: mark}.items()))
    return Start(
        argv=_raw_each(spec.argv),
        environment=dict(zip(variables[::2], variables[1::2], strict=True)),
        working_directory=_raw(str(spec.working_directory)),
        terminal=[size.rows, size.cols] if size else None,
        deadline_ms=wire.deadline_ms(deadline_s),
        user=list(spec.user),
        merged=spec.merged,
        stdin=_raw(str(spec.stdin)) if spec.stdin else b"",
        short_ms=0 if spec.terminal else round(spec.short_s * 1_000),
    )


def _raw(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _raw_each(texts: Iterable[str]) -> list[bytes]:
    """Encode texts, none of which may hold a NUL character: at once, since there are many of them for each command."""
    return _raw("\0".join(texts)).split(b"\0")
