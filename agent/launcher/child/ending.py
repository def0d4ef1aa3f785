"""Ending of a job: which of its processes are asked to end, and which have outlived it. Standard library only.

Each process is asked once, by a signal to it alone. When one pass over /proc has missed a process, a later pass finds
it, and it is asked then, unless it is cleanup: started by a process after that was asked. Cleanup is left to do its
work while its parent lives. When the parent has ended, nobody waits for the cleanup any more, and it is asked too.

A process that was just forked still has its parent's handlers, and would lose the signal in one of them. So a process
with a handler is asked when it is older than `LOOK_AGAIN_MS`, and has run, for which it may wait longer.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from typing import Final

from airunner.agent.launcher.child.tree import TICKS_A_S, Instant, Status, command_of, name_of, now, signal_each

LOOK_AGAIN_MS: Final = 50  # between passes over /proc during a grace: a pass may miss the child of a fork just then
_NOBODY: Final = (0, 0)


class Ending:
    """Ending of a job, begun by an End or by the job's deadline; further Ends may bring SIGKILL forward."""

    def __init__(self, deadline: float, *, number: int = 0, outlived: bool = False) -> None:
        self.deadline = deadline  # end of the grace; after SIGKILL, when processes are given up (monotonic clock)
        self.answers = 0  # Ended messages to send: one for each End
        self.killing = False  # whether SIGKILL has been sent
        self.number = number  # signal that asks processes to end; 0: none
        self.asked: dict[tuple[int, int], Instant] = {}  # process, by id and start → when it was asked to end
        self.outlived = outlived  # whether the command had ended before the ending began
        self.unsettled: dict[int, float] = {}  # when each process was first seen without a command line
        self.survivors: dict[int, str] = {}  # process id → command line

    def note(self, pids: Iterable[int]) -> None:
        """Record survivors and their commands, while these can still be read."""
        for pid in pids:
            self._note_process(pid, command_of(pid))

    def unasked(self, processes: list[Status], command: int | None) -> list[Status]:
        """Return the processes that have to be asked now, of all `processes` that live, parents first.

        A process whose parent has ended is the keeper's child, and the keeper was not asked: so it is no cleanup.
        The job's `command` was started with default handlers.
        """
        old_enough_ticks = now().ticks - LOOK_AGAIN_MS * TICKS_A_S // 1000
        known = {process.pid: (process.pid, process.began) for process in processes}
        spared: set[int] = set()  # cleanup, processes that were just forked, and all that these have started
        for process in processes:
            asked = self.asked.get(known.get(process.parent, _NOBODY))
            cleanup = asked is not None and asked.precedes(process)
            young = process.began >= old_enough_ticks or process.starved
            forked = young and process.pid != command and process.catches(self.number)
            if process.parent in spared or cleanup or forked:
                spared.add(process.pid)
        return [process for process in processes if known[process.pid] not in self.asked and process.pid not in spared]

    def ask(self, process: Status) -> None:
        """Ask a process to end, by a signal that it does not ignore if there is one."""
        self.asked[process.pid, process.began] = now()
        if self.number:
            signal_each([process.pid], signal.SIGTERM if process.ignores(self.number) else self.number)
            signal_each([process.pid], signal.SIGCONT)  # a stopped process would not handle it

    def note_settled(self, processes: list[Status]) -> list[Status]:
        """Record and return the survivors that may be signalled now: every process of their groups has a command line.

        A process without one is most likely exiting, or executing a program. For `LOOK_AGAIN_MS` its group is not
        signalled: the process, and others that it has just started, would end before their commands can be read.
        """
        now_s = time.monotonic()
        commands = {process.pid: command_of(process.pid) for process in processes}
        self.unsettled = {pid: self.unsettled.get(pid, now_s) for pid, command in commands.items() if not command}
        settling = {pid for pid, since in self.unsettled.items() if now_s - since < LOOK_AGAIN_MS / 1000}
        waiting = {process.group for process in processes if process.pid in settling}
        settled = [process for process in processes if process.group not in waiting]
        for process in settled:
            self._note_process(process.pid, commands[process.pid])
        return settled

    def _note_process(self, pid: int, command: str) -> None:
        if pid not in self.survivors and (command := command or name_of(pid)):
            self.survivors[pid] = command
