"""Local launcher: the agent's `Launcher`, which talks to the launcher process on this machine."""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import anyio

from airunner.agent.launcher.child import wire
from airunner.agent.launcher.child.cgroup import Limits, end_groups, launchers_group, missing_controllers, own_group
from airunner.agent.launcher.child.wire import DESCRIPTORS_MAX, Expired, Failed, Start, Started, ToAgent, send_with
from airunner.agent.launcher.contract import LauncherDied, LaunchFailed, LaunchSpec, LeaseEnded, NoLauncher
from airunner.agent.launcher.launcherprocess import LauncherProcess, LauncherSettings, spawn_launcher
from airunner.agent.launcher.line import Line
from airunner.agent.launcher.mark import VARIABLE, end_marked, new_home_mark
from airunner.agent.launcher.offloading import offload
from airunner.agent.launcher.process import KeptProcess
from airunner.agent.launcher.refusal import MachineRefused, Scarce, scarce_at_launch
from airunner.agent.launcher.watchdog import KeeperProcess
from airunner.protocol.errors import OperatorError
from airunner.transport.bell import Bell
from airunner.transport.descriptors import soft_descriptors

NO_LIMITS: Final = Limits()
WIRE: Final = Path(wire.__file__)  # a launcher that starts later would speak this version; it must be ours
WAKE_S: Final = 5.0  # for a keeper to answer: it takes milliseconds, unless it or the launcher is stopped
LAUNCH_S: Final = 30.0  # and then: for a disk that takes its time
KEEPERS_S: Final = 2.0  # for the keepers of a dead launcher to end their jobs; milliseconds, unless they are stopped
BURY_S: Final = 5.0  # for processes to die of SIGKILL; only those that hang in the kernel take longer
CLOSE_WAIT_S: Final = 5.0  # to kill everything; a process that takes longer hangs in the kernel


def start_launcher(
    held: Sequence[int] = (), limits: Limits = NO_LIMITS, mark: str = "", groups: Path | None = None
) -> ChildLauncher:
    """Start the launcher's process; meant to come before the first ZeroMQ context of this one. Raises `OperatorError`.

    It and its keepers hold the descriptors `held` open, and no job does: a lock on one of them shows
    whether a keeper of a job still lives. The `limits` are each job's. What it starts bears the `mark` of the
    agent's home, or one of its own; its control groups' folder is noted in the file `groups`.
    """
    if sys.platform != "linux":
        raise OperatorError("the agent needs Linux: run it there, this machine can still submit and monitor")
    group = own_group()
    missing = limits.controllers if group is None else missing_controllers(group, limits)
    if missing:
        raise OperatorError(
            f"jobs cannot be bounded here: the kernel offers this process no control group (version 2) for "
            f"{' and '.join(missing)}; see `airunner doctor`"
        )
    settings = LauncherSettings(tuple(held), group, limits, mark or new_home_mark(), groups, soft_descriptors())
    try:
        return ChildLauncher(settings, spawn_launcher(settings))
    except OSError as error:
        raise OperatorError(f"cannot start the launcher: {error.strerror}") from error


@contextmanager
def _reserved() -> Generator[Callable[[], None]]:
    """Reserve descriptors for a command's output before it begins; the call lets go of them.

    Those that the kernel cannot hand over it drops without an error: the command would run, and its output be lost.
    """
    with ExitStack() as kept:
        for _ in range(DESCRIPTORS_MAX):
            kept.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        yield kept.close


class ChildLauncher:
    """Child launcher: a `Launcher` for one event loop. Keepers are used again; there are as many as jobs ran at once.

    When the process dies, its keepers end their jobs and die with it; the next launch starts another.
    """

    def __init__(self, settings: LauncherSettings, spawned: LauncherProcess) -> None:
        self._settings = settings
        self._launcher = spawned
        self._launches = 0
        self._restarted = Bell()
        self._idle: list[Line] = []
        self._closed = False
        self._wire = WIRE.read_bytes()

    @property
    def pid(self) -> int:
        """The launcher's process."""
        return self._launcher.child.pid

    async def launch(self, spec: LaunchSpec, deadline_s: float = math.inf) -> KeptProcess:
        """Start a command, to be killed at `deadline_s` of CLOCK_BOOTTIME, as `Launcher.launch` does."""
        assert spec.working_directory.is_absolute(), "the launcher's own folder is none of the job's"
        try:
            line = self._take_idle() or await self._ask_for_keeper()
            self._launches += 1
            mark = f"{self._launcher.mark}.{self._launches}"
            bury = partial(self._bury, self._launcher, mark)
            answer = await self._answer(line, _start(spec, deadline_s, mark), bury)
        except OSError as error:
            if (scarce := scarce_at_launch(error.errno or 0)) is None:
                raise
            raise MachineRefused(scarce, f"cannot start a process: {error.strerror}") from error
        match answer:
            case Started(pid, keeper):
                descriptors, line.descriptors = line.descriptors, []
                if len(descriptors) != (DESCRIPTORS_MAX if spec.terminal is None else 1):
                    line.close()  # and the keeper kills what it has started
                    for descriptor in descriptors:
                        os.close(descriptor)
                    raise MachineRefused(Scarce.DESCRIPTORS, "cannot read what a process writes", begun=True)
                line.keeper = line.keeper or KeeperProcess(keeper)
                return KeptProcess(pid, descriptors, line, self._give_back, bury)
            case Failed(errno, message, exit_code):
                if (scarce := scarce_at_launch(errno)) is not None:
                    line.close()  # one process less, and whatever the failure has left open there
                    raise MachineRefused(scarce, message)
                self._give_back(line)
                raise LaunchFailed(message, exit_code)
            case Expired():
                self._give_back(line)
                raise LeaseEnded
            case other:
                raise AssertionError(f"a keeper said {other} out of turn")

    async def watch(self) -> None:
        """Watch the launcher for ever: when it dies, end its keepers and their jobs too.

        The kernel signals them, but a keeper that is stopped does not act on that.
        """
        while True:
            launcher = self._launcher
            await launcher.ended()
            with anyio.move_on_after(KEEPERS_S):
                await self._replaced(launcher)
            await self._bury(launcher, launcher.mark)
            await self._replaced(launcher)

    async def _replaced(self, launcher: LauncherProcess) -> None:
        """Return once another launcher has been started."""
        while self._launcher is launcher:
            await self._restarted.wait()

    async def aclose(self) -> None:
        """Kill every job's processes, and wait for the launcher to be gone. May be called again."""
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
            await self._bury(launcher, launcher.mark)

    async def _answer(self, line: Line, start: Start, bury: Callable[[], Awaitable[None]]) -> ToAgent:
        """Return the keeper's answer to a Start. If there is none, close its line and kill what it has begun.

        Raises `LauncherDied`; `OSError` where there are no descriptors for what it would hand over.
        """
        try:
            with _reserved() as let_go:
                if not await self._answers(line, start):
                    (line.keeper or self._launcher.child).kill()  # or the launcher, which ought to have made a keeper
                    await line.readable()
                let_go()
                return await line.receive()
        except BaseException as error:
            line.close()
            if isinstance(error, LauncherDied):
                await bury()
            raise

    async def _answers(self, line: Line, start: Start) -> bool:
        """Return whether the keeper answers. Soon it is woken, with the launcher: a job may have stopped either."""
        with anyio.move_on_after(WAKE_S):
            with suppress(LauncherDied):  # the next message on the line reports it, or something better
                await line.send(start)
            await line.readable()
            return True
        self._launcher.child.send_signal(signal.SIGCONT)
        if line.keeper is not None:
            line.keeper.wake()
        with anyio.move_on_after(LAUNCH_S):
            await line.readable()
            return True
        return False

    async def _bury(self, launcher: LauncherProcess, mark: str) -> None:
        """Kill the processes with the mark, and where this launcher is dead, those in its control groups."""
        group = self._settings.group if launcher.child.poll() is not None else None

        def end() -> None:
            if group is not None:
                end_groups(launchers_group(group, launcher.child.pid, launcher.mark), BURY_S)
            end_marked(mark, BURY_S)

        with anyio.CancelScope(shield=True):
            await offload(end)

    def _take_idle(self) -> Line | None:
        while self._idle:
            line = self._idle.pop()
            if not line.broken:
                return line
            line.close()
        return None

    def _give_back(self, line: Line) -> None:
        if self._closed:
            line.close()
        else:
            self._idle.append(line)

    async def _ask_for_keeper(self) -> Line:
        if self._closed:
            raise LauncherDied
        if self._launcher.child.poll() is not None:
            self._restart()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        line = Line(ours)
        with theirs:
            try:
                while True:
                    try:
                        send_with(self._launcher.line, b"keeper", [theirs.fileno()])
                    except BlockingIOError:
                        await anyio.wait_writable(self._launcher.line)
                    else:
                        return line
            except BaseException as error:
                line.close()
                if isinstance(error, BrokenPipeError | ConnectionResetError):
                    raise LauncherDied from error
                raise

    def _restart(self) -> None:
        """Start another process in the place of one that has died; raises `NoLauncher`.

        ZeroMQ's threads are there by now; what `spawn_launcher` does is safe beside them.
        """
        self._launcher.hang_up()
        try:
            if WIRE.read_bytes() != self._wire:
                raise NoLauncher("airunner was upgraded beneath this agent, whose launcher has died: restart it")
            self._launcher = spawn_launcher(self._settings)
        except OSError as error:
            raise NoLauncher(f"the launcher has died, and another cannot be started: {error.strerror}") from error
        self._restarted.ring()


def _start(spec: LaunchSpec, deadline_s: float, mark: str) -> Start:
    size = spec.terminal
    return Start(
        argv=[_raw(argument) for argument in spec.argv],
        environment={_raw(name): _raw(value) for name, value in {**spec.environment, VARIABLE: mark}.items()},
        working_directory=_raw(str(spec.working_directory)),
        terminal=[size.rows, size.cols] if size else None,
        deadline_ms=wire.deadline_ms(deadline_s),
        user=list(spec.user),
    )


def _raw(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
