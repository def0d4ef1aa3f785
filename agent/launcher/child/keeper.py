"""Keeper: runs one job at a time, reports how its command ended, and ends the processes that it left. Child's half.

One thread, one loop, no clock but the grace and the deadline, which a sleep of the machine counts towards. A job goes
Start → Exited → (End → Ended); without the last two where nothing was left (`alone`). Then the next Start may come.

When the agent's end of the socket closes, or the launcher dies, every process of the job is killed and the
keeper exits. At the job's deadline every process is killed too, for an agent that is stopped and can do nothing: its
job is dead before another agent holds the lease. The agent then receives Expired, and never how the command ended;
the keeper gets no other job.
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

RECEIVE_BYTES: Final = 65_536
SURVIVORS_MAX: Final = 100  # that are named; all are ended
LOOK_AGAIN_MS: Final = 50  # while a grace lasts: a pass over /proc may miss a process that forks just then
_AT_ONCE: Final = 0.0  # of the monotonic clock
STUCK_S: Final = 10.0  # after SIGKILL: long enough for a slow disk, not for a disk that hangs


class _Ending:
    """Ending of a job: one End or several that are not yet answered; the earliest deadline counts."""

    def __init__(self, deadline: float, *, gentle: bool = False, outlived: bool = False) -> None:
        self.deadline = deadline
        self.answers = 0  # owed: one for each End
        self.killing = False
        self.began = now_in_ticks()
        self.gentle = gentle  # whether SIGTERM is sent at all
        self.told: set[int] = set()  # the processes that it was sent to
        self.outlived = outlived  # whether the command had ended before
        self.unsettled: dict[int, float] = {}  # since when processes without a command line are seen without
        self.survivors: dict[int, str] = {}

    def name(self, pids: Iterable[int]) -> None:
        """Note survivors, while they can still be asked for their commands."""
        for pid in pids:
            self._note(pid, command_of(pid))

    def name_settled(self, processes: list[Status]) -> list[Status]:
        """Note and return the survivors that have a command line, or still have none a look later.

        A process without one is ending or beginning another program. A signal to its group would end it under no
        name of its own, and unnamed what it started after the pass: that group has to wait for it.
        """
        now = time.monotonic()
        commands = {process.pid: command_of(process.pid) for process in processes}
        self.unsettled = {pid: self.unsettled.get(pid, now) for pid, command in commands.items() if not command}
        settling = {pid for pid, since in self.unsettled.items() if now - since < LOOK_AGAIN_MS / 1000}
        waiting = {process.group for process in processes if process.pid in settling}
        settled = [process for process in processes if process.group not in waiting]
        for process in settled:
            self._note(process.pid, commands[process.pid])
        return settled

    def _note(self, pid: int, command: str) -> None:
        if pid not in self.survivors and (command := command or name_of(pid)):
            self.survivors[pid] = command


class Keeper:
    """Keeper that runs in this process."""

    def __init__(self, line: socket.socket, wakeup: Wakeup, group: Path | None) -> None:
        self._line = line
        self._group = group
        self._oom_kills = 0  # in the group, when the command began
        self._spending = Spending()  # of this job
        self._wakeup = wakeup
        self._wakeup.watch(line.fileno())
        self._timer = BootTimer()  # for the deadline: it wakes us when the machine has slept past it
        self._wakeup.watch(self._timer.descriptor)
        self._reader = Reader()
        self._command: int | None = None  # while it runs
        self._held: list[int] = []  # and so long these stay open
        self._alone = True
        self._ending: _Ending | None = None
        self._deadline = math.inf
        self._expired = False

    def run(self) -> None:
        """Keep jobs until the agent closes the line or the launcher dies. On return no process is left."""
        try:
            while self._turn():
                pass
        finally:
            end_now(self._wakeup)

    def _turn(self) -> bool:
        self._timer.set(math.inf if self._alone or self._expired else self._deadline)
        ready, signals = self._wakeup.wait(self._patience_ms())
        if signal.SIGTERM in signals:
            return False
        if self._line.fileno() in ready:
            chunk = _receive(self._line)
            if not chunk:
                return False
            for message in self._reader.feed(chunk):
                self._obey(message)
        self._reap()
        self._expire()
        return self._escalate()

    def _patience_ms(self) -> int | None:
        if self._ending is None:
            return None
        if self._ending.killing:
            return KILL_AGAIN_MS
        return min(LOOK_AGAIN_MS, max(0, math.ceil((self._ending.deadline - time.monotonic()) * 1000)))

    def _obey(self, message: ToKeeper) -> None:
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
        assert self._alone, "a job is started while another is kept"
        self._deadline = _seconds(start.deadline_ms)
        if boot_s() >= self._deadline:
            self._say(Expired())
            return
        try:
            self._command, descriptors, self._held = spawn(start)
        except Refusal as refusal:
            self._say(Failed(refusal.errno, refusal.message, refusal.exit_code))
            return
        self._alone = False
        self._spending = Spending()
        self._oom_kills = oom_kills(self._group)
        self._say(Started(self._command, os.getpid()), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _end(self, grace_ms: int) -> None:
        deadline = time.monotonic() + grace_ms / 1000
        if self._ending is None:
            self._ending = _Ending(deadline, gentle=grace_ms > 0, outlived=self._command is None)
            self._tell(self._ending)
        elif not self._ending.killing:
            self._ending.deadline = min(self._ending.deadline, deadline)
        self._ending.answers += 1

    def _tell(self, ending: _Ending) -> None:
        """Send SIGTERM once to each process that was there when the End came, and name those that outlived the command.

        What they start from then on, to clean up, is left alone.
        """
        alive = [process for process in descendants(os.getpid()) if process.alive]
        fresh = [process for process in alive if process.pid not in ending.told and process.began <= ending.began]
        if ending.outlived:
            fresh = ending.name_settled(fresh)
        ending.told.update(process.pid for process in fresh)
        if ending.gentle:
            signal_all(fresh, signal.SIGTERM)
            signal_all(fresh, signal.SIGCONT)  # a stopped process could not obey

    def _reap(self) -> None:
        ended, self._alone = reap(spending=self._spending)
        status = dict(ended).get(self._command or 0)
        if status is None:
            return
        self._command = None
        while self._held:
            os.close(self._held.pop())
        if not self._expired:  # else it was us
            code = os.waitstatus_to_exitcode(status)
            oom = code != 0 and oom_kills(self._group) > self._oom_kills
            spent = self._spending.figures
            self._say(Exited(code if code >= 0 else None, -code if code < 0 else None, self._alone, oom, spent))

    def _expire(self) -> None:
        """Kill all at the deadline. During an End that kills already, it only changes what is reported."""
        if self._alone or self._expired or boot_s() < self._deadline:
            return
        self._expired = True
        if self._ending is None:
            self._ending = _Ending(_AT_ONCE)
        elif not self._ending.killing:
            self._ending.deadline = _AT_ONCE

    def _escalate(self) -> bool:
        """Go on with an End; False when it had to be given up."""
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
            ending.name(pid for pid in alive if pid != self._command)
            ending.killing = True
            ending.deadline = time.monotonic() + STUCK_S
        elif not ending.killing:
            self._tell(ending)
        if ending.killing:
            signal_all(descendants(os.getpid()), signal.SIGKILL)
        return True

    def _finish(self, ending: _Ending, left: Collection[int]) -> None:
        self._ending = None
        if self._expired:
            self._say(Expired())
            return
        ending.name(left)
        named = [[pid, command, pid in left] for pid, command in ending.survivors.items()]
        for _ in range(ending.answers):
            self._say(Ended(named[:SURVIVORS_MAX], self._spending.figures))

    def _say(self, message: ToAgent, descriptors: list[int] | None = None) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # the next turn reads the end of the line
            send_with(self._line, pack(message), descriptors or [])


def keep(line: socket.socket, launcher: int, group: Path | None) -> None:
    """Run a keeper, in a fork of the launcher, until the end of its process."""
    try:
        set_name("airunner-keeper")
        os.setsid()
        wakeup = Wakeup((signal.SIGCHLD, signal.SIGTERM))
        call_me_when_my_parent_dies(signal.SIGTERM)
        keeper = Keeper(line, wakeup, group)
    except OSError as error:
        refuse(line, error)
        return
    if os.getppid() == launcher:  # else it died before we could ask for the signal
        keeper.run()


def refuse(line: socket.socket, error: OSError) -> None:
    """Answer the Start that comes on `line`: the machine has no keeper for it, and why."""
    number = error.errno or 0
    refused = Failed(number, f"the machine has no process for it: {os.strerror(number)}", EXIT_NOT_EXECUTABLE)
    with suppress(OSError):  # the agent has gone
        send_with(line, pack(refused), [])


def _seconds(deadline_ms: int | None) -> float:
    return math.inf if deadline_ms is None else deadline_ms / 1000


def _receive(line: socket.socket) -> bytes:
    try:
        return line.recv(RECEIVE_BYTES)
    except ConnectionResetError:  # the agent died with something of ours unread
        return b""
