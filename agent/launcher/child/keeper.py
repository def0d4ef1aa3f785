"""Keeper process: runs one job at a time, reports the exit of the job's command, and ends the job's other processes.

A keeper has one thread with one loop. Usually the messages of a job are Start → Started → Exited → End → Ended; End
and Ended are left out if no process is left after the command (`alone`). Then the next Start may follow.

When the agent's end of the socket closes, or the launcher dies, the keeper kills every process of the job and exits.
It kills them at the job's deadline too, because a stopped agent cannot: the job is dead before another agent gets the
lease. The clock of the deadline also runs while the machine sleeps. After the deadline the agent receives Expired
instead of Exited or Ended, and closes the connection.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, assert_never

from airunner.agent.launcher.child.cgroup import oom_kills
from airunner.agent.launcher.child.linux import call_me_when_my_parent_dies, set_name
from airunner.agent.launcher.child.spawning import EXIT_NOT_EXECUTABLE, Refusal, spawn
from airunner.agent.launcher.child.spending import Spending
from airunner.agent.launcher.child.tree import (
    KILL_AGAIN_MS,
    Status,
    command_of,
    descendants,
    end_now,
    name_of,
    now_in_ticks,
    reap,
    signal_all,
)
from airunner.agent.launcher.child.wakeup import Wakeup
from airunner.agent.launcher.child.wire import (
    End,
    Ended,
    Exited,
    Expired,
    Failed,
    KeepUntil,
    Reader,
    Start,
    Started,
    ToAgent,
    ToKeeper,
    pack,
    send_with,
)
from airunner.transport.timers import BootTimer, boot_s

RECEIVE_BYTES: Final = 65_536  # bytes read at a time
SURVIVORS_MAX: Final = 100  # survivors that Ended lists; all are killed
LOOK_AGAIN_MS: Final = 50  # between passes over /proc during a grace: a pass may miss the child of a fork just then
_AT_ONCE: Final = 0.0  # a deadline that has passed, on the monotonic clock
STUCK_S: Final = 10.0  # from SIGKILL until processes are given up: enough on a slow disk, not on a disk that hangs


class _Ending:
    """Ending of a job, begun by an End or by the job's deadline; further Ends may bring SIGKILL forward."""

    def __init__(self, deadline: float, *, gentle: bool = False, outlived: bool = False) -> None:
        self.deadline = deadline  # on the monotonic clock: of the grace; after SIGKILL, of `STUCK_S`
        self.answers = 0  # Ended messages to send: one for each End
        self.killing = False  # whether SIGKILL has been sent
        self.began = now_in_ticks()  # when the ending began
        self.gentle = gentle  # whether SIGTERM is sent at all
        self.handled: set[int] = set()  # processes that were sent SIGTERM, or would be if `gentle`
        self.outlived = outlived  # whether the command had ended before the ending began
        self.unsettled: dict[int, float] = {}  # when each process was first seen without a command line
        self.survivors: dict[int, str] = {}  # process id → command line

    def note(self, pids: Iterable[int]) -> None:
        """Record survivors and their commands, while these can still be read."""
        for pid in pids:
            self._note_process(pid, command_of(pid))

    def note_settled(self, processes: list[Status]) -> list[Status]:
        """Record and return the survivors that may be signalled now: their groups have no process without command line.

        Such a process is most likely exiting, or executing a program. For `LOOK_AGAIN_MS` its group is not signalled:
        the process, and others that it has just started, would end before their commands can be read.
        """
        now = time.monotonic()
        commands = {process.pid: command_of(process.pid) for process in processes}
        self.unsettled = {pid: self.unsettled.get(pid, now) for pid, command in commands.items() if not command}
        settling = {pid for pid, since in self.unsettled.items() if now - since < LOOK_AGAIN_MS / 1000}
        waiting = {process.group for process in processes if process.pid in settling}
        settled = [process for process in processes if process.group not in waiting]
        for process in settled:
            self._note_process(process.pid, commands[process.pid])
        return settled

    def _note_process(self, pid: int, command: str) -> None:
        if pid not in self.survivors and (command := command or name_of(pid)):
            self.survivors[pid] = command


class Keeper:
    """Keeper that runs in this process."""

    def __init__(self, connection: socket.socket, wakeup: Wakeup, group: Path | None) -> None:
        self._connection = connection
        self._group = group
        self._oom_kills = 0  # OOM kills in the group before the command started
        self._spending = Spending()  # resources that this job has used
        self._wakeup = wakeup
        self._wakeup.watch(connection.fileno())
        self._timer = BootTimer()  # for the deadline, which may pass while the machine sleeps
        self._wakeup.watch(self._timer.descriptor)
        self._reader = Reader()
        self._command: int | None = None  # process id of the command, while it runs
        self._held: list[int] = []  # the terminal's slave, which stays open while the command runs
        self._alone = True  # whether no process of a job is left
        self._ending: _Ending | None = None
        self._deadline = math.inf  # deadline of the job, in seconds of CLOCK_BOOTTIME
        self._expired = False

    def run(self) -> None:
        """Run jobs until the agent closes its socket, the launcher dies or SIGKILL fails; then end all processes."""
        try:
            while self._turn():
                pass
        finally:
            end_now(self._wakeup)

    def _turn(self) -> bool:
        self._timer.set(math.inf if self._alone or self._expired else self._deadline)
        ready, signals = self._wakeup.wait(self._timeout_ms())
        if signal.SIGTERM in signals:
            return False
        if self._connection.fileno() in ready:
            chunk = _receive(self._connection)
            if not chunk:
                return False
            for message in self._reader.feed(chunk):
                self._handle(message)
        self._reap()
        self._expire()
        return self._escalate()

    def _timeout_ms(self) -> int | None:
        if self._ending is None:
            return None
        if self._ending.killing:
            return KILL_AGAIN_MS
        return min(LOOK_AGAIN_MS, max(0, math.ceil((self._ending.deadline - time.monotonic()) * 1000)))

    def _handle(self, message: ToKeeper) -> None:
        match message:
            case Start():
                self._start(message)
            case KeepUntil():
                self._deadline = _seconds(message.deadline_ms)
            case End():
                self._end(message.grace_ms)
            case _:
                assert_never(message)

    def _start(self, start: Start) -> None:
        assert self._alone, "a job is started while processes of another are left"
        self._deadline = _seconds(start.deadline_ms)
        if boot_s() >= self._deadline:
            self._send(Expired())
            return
        try:
            self._command, descriptors, self._held = spawn(start)
        except Refusal as refusal:
            self._send(Failed(refusal.errno, refusal.message, refusal.exit_code))
            return
        self._alone = False
        self._spending = Spending()
        self._oom_kills = oom_kills(self._group)
        self._send(Started(self._command, os.getpid()), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _end(self, grace_ms: int) -> None:
        deadline = time.monotonic() + grace_ms / 1000
        if self._ending is None:
            self._ending = _Ending(deadline, gentle=grace_ms > 0, outlived=self._command is None)
            self._terminate(self._ending)
        elif not self._ending.killing:
            self._ending.deadline = min(self._ending.deadline, deadline)
        self._ending.answers += 1

    def _terminate(self, ending: _Ending) -> None:
        """Send SIGTERM, if there is a grace, once to each process that was running when the ending began.

        Processes that are started later, to clean up, do not get SIGTERM. If the command had ended, record survivors.
        """
        alive = [process for process in descendants(os.getpid()) if process.alive]
        fresh = [process for process in alive if process.pid not in ending.handled and process.began <= ending.began]
        if ending.outlived:
            fresh = ending.note_settled(fresh)
        ending.handled.update(process.pid for process in fresh)
        if ending.gentle:
            signal_all(fresh, signal.SIGTERM)
            signal_all(fresh, signal.SIGCONT)  # a stopped process would not handle SIGTERM

    def _reap(self) -> None:
        ended, self._alone = reap(spending=self._spending)
        status = dict(ended).get(self._command or 0)
        if status is None:
            return
        self._command = None
        while self._held:
            os.close(self._held.pop())
        if not self._expired:  # otherwise the keeper has killed the command
            code = os.waitstatus_to_exitcode(status)
            oom = code != 0 and oom_kills(self._group) > self._oom_kills
            spent = self._spending.figures
            self._send(Exited(code if code >= 0 else None, -code if code < 0 else None, self._alone, oom, spent))

    def _expire(self) -> None:
        """At the deadline, kill all processes, if they are not being killed already; the answer will be Expired."""
        if self._alone or self._expired or boot_s() < self._deadline:
            return
        self._expired = True
        if self._ending is None:
            self._ending = _Ending(_AT_ONCE)
        elif not self._ending.killing:
            self._ending.deadline = _AT_ONCE

    def _escalate(self) -> bool:
        """Continue an ending: SIGKILL after the grace, then the answers. False: SIGKILL has failed for `STUCK_S`."""
        ending = self._ending
        if ending is None:
            return True
        if self._alone:
            self._finish(ending, left=())
            return True
        if time.monotonic() >= ending.deadline:
            alive = [process.pid for process in descendants(os.getpid()) if process.alive]
            if ending.killing:
                self._finish(ending, left=alive)
                return False
            ending.note(pid for pid in alive if pid != self._command)
            ending.killing = True
            ending.deadline = time.monotonic() + STUCK_S
        elif not ending.killing:
            self._terminate(ending)
        if ending.killing:
            signal_all(descendants(os.getpid()), signal.SIGKILL)
        return True

    def _finish(self, ending: _Ending, left: Collection[int]) -> None:
        self._ending = None
        if self._expired:
            self._send(Expired())
            return
        ending.note(left)
        named = [[pid, command, pid in left] for pid, command in ending.survivors.items()]
        for _ in range(ending.answers):
            self._send(Ended(named[:SURVIVORS_MAX], self._spending.figures))

    def _send(self, message: ToAgent, descriptors: list[int] | None = None) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # the next turn reads the end of the stream
            send_with(self._connection, pack(message), descriptors or [])


def run_keeper(connection: socket.socket, launcher: int, group: Path | None) -> None:
    """Run a keeper, in a fork of the launcher, until it has to exit."""
    try:
        set_name("airunner-keeper")
        os.setsid()
        wakeup = Wakeup((signal.SIGCHLD, signal.SIGTERM))
        call_me_when_my_parent_dies(signal.SIGTERM)
        keeper = Keeper(connection, wakeup, group)
    except OSError as error:
        refuse(connection, error)
        return
    if os.getppid() == launcher:  # otherwise the launcher died before we asked for the signal
        keeper.run()


def refuse(connection: socket.socket, error: OSError) -> None:
    """Answer the Start on `connection` with Failed: there is no keeper for it, because of `error`."""
    number = error.errno or 0
    refused = Failed(number, f"cannot start a keeper process: {os.strerror(number)}", EXIT_NOT_EXECUTABLE)
    with suppress(OSError):  # the agent is gone
        send_with(connection, pack(refused), [])


def _seconds(deadline_ms: int | None) -> float:
    return math.inf if deadline_ms is None else deadline_ms / 1000


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(RECEIVE_BYTES)
    except ConnectionResetError:  # the agent died before it had read all messages
        return b""
