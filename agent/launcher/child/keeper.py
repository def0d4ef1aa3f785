"""Keeper process: runs one job at a time, reports the exit of the job's command, and ends the job's other processes.

A keeper has one thread with one loop. Its first message is Ready. Usually the messages of a job are Start → Started →
Exited → End → Ended; End and Ended are left out if no process is left after the command (`alone`). Then the next Start
may follow. The agent may wait for a command that is probably short: if the command ends in time and leaves no process,
Start → Ran is all.

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
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final, assert_never

from airunner.agent.launcher.child.cgroup import OomKills
from airunner.agent.launcher.child.ending import LOOK_AGAIN_MS, Ending
from airunner.agent.launcher.child.linux import call_me_when_my_parent_dies, set_name
from airunner.agent.launcher.child.shortoutput import whole_output
from airunner.agent.launcher.child.spawning import EXIT_NOT_EXECUTABLE, Refusal, spawn
from airunner.agent.launcher.child.spending import Spending
from airunner.agent.launcher.child.terminalinput import TerminalInput
from airunner.agent.launcher.child.tree import (
    KILL_AGAIN_MS,
    descendants,
    end_now,
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
    Ran,
    Reader,
    Ready,
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
_AT_ONCE: Final = 0.0  # a deadline that has passed, on the monotonic clock
STUCK_S: Final = 10.0  # from SIGKILL until processes are given up: enough on a slow disk, not on a disk that hangs


class Keeper:
    """Keeper that runs in this process."""

    def __init__(self, connection: socket.socket, wakeup: Wakeup, group: Path | None) -> None:
        self._connection = connection
        self._oom_kills = OomKills(group)
        self._oom_kills_before = 0  # their number when the command started
        self._spending = Spending()  # resources that this job has used
        self._wakeup = wakeup
        self._wakeup.watch(connection.fileno())
        self._timer = BootTimer()  # for the deadline, which may pass while the machine sleeps
        self._wakeup.watch(self._timer.descriptor)
        self._messages = Reader()  # those of the agent
        self._command: int | None = None  # process id of the command, while it runs
        self._began_s = 0.0  # when the command was started
        self._outputs: list[int] = []  # pipes or terminal with a command's output, until its start is reported
        self._report_s = math.inf  # when its start is to be reported, if the command has not ended before
        self._input: TerminalInput | None = None  # of the command's terminal, while it runs
        self._alone = True  # whether no process of a job is left
        self._ending: Ending | None = None
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
        # Until the start is reported, the loop looks at the deadline all the same, within `short_ms`.
        self._timer.set(math.inf if self._alone or self._expired or self._outputs else self._deadline)
        ready, signals = self._wakeup.wait(self._timeout_ms())
        if signal.SIGTERM in signals:
            return False
        if self._connection.fileno() in ready:
            chunk = _receive(self._connection)
            if not chunk:
                return False
            for message in self._messages.feed(chunk):
                self._handle(message)
        if self._input is not None and (self._input.watched in ready or time.monotonic() >= self._input.due_s):
            self._input.feed()
        self._reap()
        self._expire()
        if time.monotonic() >= self._report_s:
            self._report_start(self._command)
        return self._escalate()

    def _timeout_ms(self) -> int | None:
        due_s = self._report_s if self._input is None else min(self._report_s, self._input.due_s)
        if self._ending is not None:
            look_s = time.monotonic() + (KILL_AGAIN_MS if self._ending.killing else LOOK_AGAIN_MS) / 1000
            due_s = min(due_s, look_s, math.inf if self._ending.killing else self._ending.deadline)
        return None if due_s == math.inf else max(0, math.ceil((due_s - time.monotonic()) * 1000))

    def _handle(self, message: ToKeeper) -> None:
        match message:
            case Start():
                self._start(message)
            case KeepUntil():
                self._deadline = _seconds(message.deadline_ms)
            case End():
                self._end(message)
            case _:
                assert_never(message)

    def _start(self, start: Start) -> None:
        assert self._alone, "a job is started while processes of another are left"
        self._deadline = _seconds(start.deadline_ms)
        if boot_s() >= self._deadline:
            self._send(Expired())
            return
        try:
            self._command, self._outputs, self._input = spawn(start)
        except Refusal as refusal:
            self._send(Failed(refusal.errno, refusal.message, refusal.exit_code))
            return
        self._alone = False
        self._spending = Spending()
        self._oom_kills_before = self._oom_kills.count()
        if self._input is not None:
            self._wakeup.watch(self._input.watched)
        self._began_s = time.monotonic()
        self._report_s = self._began_s + start.short_ms / 1000
        if not start.short_ms:
            self._report_start(self._command)

    def _report_start(self, command: int | None) -> None:
        """Report the start of the command, if that was not done yet."""
        if self._outputs:
            assert command is not None
            self._send(Started(command), self._outputs)
            self._close_outputs()

    def _close_outputs(self) -> None:
        self._report_s = math.inf
        while self._outputs:
            os.close(self._outputs.pop())

    def _end(self, end: End) -> None:
        deadline = time.monotonic() + end.grace_ms / 1000
        if self._ending is None:
            number = end.signal if end.grace_ms else 0
            self._ending = Ending(deadline, number=number, outlived=self._command is None)
            self._terminate(self._ending)
        elif not self._ending.killing:
            self._ending.deadline = min(self._ending.deadline, deadline)
        self._ending.answers += 1

    def _terminate(self, ending: Ending) -> None:
        """Ask each process once to end, if there is a grace. If the command had ended, record survivors."""
        alive = [process for process in descendants(os.getpid()) if process.alive]
        unasked = ending.unasked(alive, self._command)
        for process in ending.note_settled(unasked) if ending.outlived else unasked:
            ending.ask(process)

    def _reap(self) -> None:
        ended, self._alone = reap(spending=self._spending)
        status = dict(ended).get(self._command or 0)
        if status is None:
            return
        command, self._command = self._command, None
        if self._input is not None:
            self._wakeup.forget(self._input.watched)
            self._input.close()
            self._input = None
        if not self._expired:  # otherwise the keeper has killed the command
            code = os.waitstatus_to_exitcode(status)
            oom = code != 0 and self._oom_kills.count() > self._oom_kills_before
            self._report_end(command, code if code >= 0 else None, -code if code < 0 else None, oom=oom)

    def _report_end(self, command: int | None, exit_code: int | None, number: int | None, *, oom: bool) -> None:
        """Report the command's end, together with its start if that was not reported yet."""
        spent = self._spending.figures
        output = whole_output(self._outputs) if self._outputs and self._alone else None
        if output is None:
            self._report_start(command)
            self._send(Exited(exit_code, number, self._alone, oom, spent))
        else:
            assert command is not None
            ran_us = round((time.monotonic() - self._began_s) * 1_000_000)
            self._send(Ran(command, ran_us, output, exit_code, number, oom, spent))
            self._close_outputs()

    def _expire(self) -> None:
        """At the deadline, kill all processes, if they are not being killed already; the answer will be Expired."""
        if self._alone or self._expired or boot_s() < self._deadline:
            return
        self._report_start(self._command)
        self._expired = True
        if self._ending is None:
            self._ending = Ending(_AT_ONCE)
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

    def _finish(self, ending: Ending, left: Collection[int]) -> None:
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
        send_with(connection, pack(Ready(os.getpid())), [])
    except OSError as error:
        refuse(connection, error)
        return
    if os.getppid() == launcher:  # otherwise the launcher died before we asked for the signal
        keeper.run()


def refuse(connection: socket.socket, error: OSError) -> None:
    """Answer on `connection` with Failed: there is no keeper, because of `error`."""
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
