"""Process tree: the descendants of a process, and signals to all of them. Standard library only.

Descendants are found in one pass over /proc/PID/stat. A process that lives through the whole pass is missed only if
one of its ancestors dies meanwhile; it is then a child of its subreaper, and the next pass finds it. So code that
must find every process repeats the pass until `waitpid` reports no children (`end_now`). The lists of children in
/proc/PID/task are not used: many kernels do not have them, and they may be incomplete.

SIGKILL goes to process groups. The kernel signals a group in one step in which no member can fork, so a process that
forks and exits between two passes does not escape. A job's command leads its own session, so the group of a
descendant has only descendants as members; our own group is the exception. (A process that changes its group at each
fork may escape for as long as it does so.) A signal that asks a process to end goes to each process once, by its id:
a group would get it again with each new member.

A process id could in theory be reused between pass and signal. The kernel assigns ids in ascending order, so all
other ids would have to be used within a millisecond.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from airunner.agent.launcher.child.spending import Spending
    from airunner.agent.launcher.child.wakeup import Wakeup

COMMAND_CHARS_MAX: Final = 200  # characters of a command line that are reported
KILL_AGAIN_MS: Final = 20  # pause between passes that kill: a pass may miss a fork; a child's death ends the pause

TICKS_A_S: Final = os.sysconf("SC_CLK_TCK")

_READ_BYTES: Final = 4_096  # enough: a stat line has some 300 bytes, `COMMAND_CHARS_MAX` at most 800
# Indices after the name, see proc_pid_stat(5):
_STATE, _PARENT, _GROUP, _SESSION, _USER, _SYSTEM, _THREADS, _BEGAN, _IGNORED, _CAUGHT = (
    0,
    1,
    2,
    3,
    11,
    12,
    17,
    19,
    30,
    31,
)


class Status(NamedTuple):
    """Status of a process, as /proc/PID/stat has it."""

    pid: int
    parent: int
    group: int
    session: int
    began: int  # when the process started, in clock ticks since boot
    ran: int  # processor time that the process has used, in clock ticks
    state: bytes
    alive: bool  # True also if only its first thread has ended, although /proc then shows a zombie
    ignored: int  # mask of the signals that the process ignores: bit 0 is signal 1
    caught: int  # mask of the signals for which it has a handler

    @property
    def starved(self) -> bool:
        """Whether the process has hardly run, and waits for a processor: it may still be where it was forked."""
        return not self.ran and self.state in (b"R", b"D")

    def ignores(self, number: int) -> bool:
        """Whether the process ignores signal `number`, as a shell's background processes SIGINT, and most SIGWINCH."""
        by_default = number == signal.SIGWINCH and not self.catches(number)
        return by_default or bool(self.ignored << 1 >> number & 1)

    def catches(self, number: int) -> bool:
        """Whether the process has a handler for signal `number`; after a fork, its parent's until it resets it."""
        return bool(self.caught << 1 >> number & 1)


class Instant(NamedTuple):
    """Instant by which processes that started before are told from later ones; finer than `Status.began` alone."""

    ticks: int  # clock ticks since boot
    last: int  # process id that was assigned last: the kernel assigns ids in ascending order

    def precedes(self, process: Status) -> bool:
        """Whether the process was started after this instant. Wrong only if ids wrap around within one tick."""
        return (process.began, process.pid) > (self.ticks, self.last)


def status_of(pid: int) -> Status | None:
    """Return the status of a process; None: it is gone, or just ending."""
    try:
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return None
    if not fields:  # the process is ending
        return None
    state, parent, group, session = fields[_STATE], int(fields[_PARENT]), int(fields[_GROUP]), int(fields[_SESSION])
    alive = state not in (b"Z", b"X") or int(fields[_THREADS]) > 1
    began, ran = int(fields[_BEGAN]), int(fields[_USER]) + int(fields[_SYSTEM])
    return Status(pid, parent, group, session, began, ran, state, alive, int(fields[_IGNORED]), int(fields[_CAUGHT]))


def process_ids() -> Iterator[int]:
    """List the processes of this machine, in one pass over /proc."""
    with os.scandir("/proc") as entries:
        yield from (int(entry.name) for entry in entries if entry.name.isdigit())


def descendants(root: int, besides: Collection[int] = ()) -> list[Status]:
    """List all descendants of `root`, parents first, except the processes in `besides` and their descendants."""
    children: dict[int, list[Status]] = {}
    for pid in process_ids():
        if (status := status_of(pid)) is not None:
            children.setdefault(status.parent, []).append(status)
    found: list[Status] = []
    waiting = [root]
    while waiting:
        for child in children.pop(waiting.pop(), ()):
            if child.pid not in besides:
                found.append(child)
                waiting.append(child.pid)
    return found


def now() -> Instant:
    """Return the current instant."""
    last = _last_process_id()  # read first: of what is started in between, the tick decides
    return Instant(time.clock_gettime_ns(time.CLOCK_BOOTTIME) * TICKS_A_S // 10**9, last)


def _last_process_id() -> int:
    """Return the process id that the kernel has assigned last, in our namespace."""
    with suppress(OSError):  # the kernel may have been built without it
        return int(_read("/proc/sys/kernel/ns_last_pid"))
    return int(_read("/proc/loadavg").split()[-1])  # that of the host, where lxcfs stands for this file


def signal_all(processes: Iterable[Status], number: int) -> None:
    """Send signal `number` to the processes' groups; groups that are gone or another user's are skipped."""
    ours = os.getpgrp()  # a keeper that was just forked is still in our group
    signal_each((process.pid if process.group == ours else -process.group for process in processes), number)


def signal_each(targets: Iterable[int], number: int) -> None:
    """Send signal `number` once to each process id or negative group id; those gone or another user's are skipped."""
    for target in set(targets):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(target, number)


def command_of(pid: int) -> str:
    """Return a process's command line; empty: the process is ending, is inside execve, or has none."""
    with suppress(OSError):
        line = _read(f"/proc/{pid}/cmdline").rstrip(b"\0").replace(b"\0", b" ")
        return line.decode(errors="replace")[:COMMAND_CHARS_MAX]
    return ""


def name_of(pid: int) -> str:
    """Return a process's name in brackets, as ps(1) does if there is no command line; empty: the process is gone."""
    with suppress(OSError):
        return "[" + _read(f"/proc/{pid}/comm").decode(errors="replace").strip() + "]"
    return ""


def reap(options: int = 0, spending: Spending | None = None) -> tuple[list[tuple[int, int]], bool]:
    """Reap every child that has ended; return `(pid, wait status)` of each, and whether no child is left.

    With WUNTRACED in `options`, stopped children are listed too. The resources used are added to `spending`.
    """
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status, used = os.wait4(-1, os.WNOHANG | options)
        except ChildProcessError:
            return ended, True
        if not pid:
            return ended, False
        if spending is not None:
            spending.add(used)
        ended.append((pid, status))


def end_now(wakeup: Wakeup) -> None:
    """Send SIGKILL to all descendants of this process until there are none."""
    while not reap()[1]:
        signal_all(descendants(os.getpid()), signal.SIGKILL)
        wakeup.wait(KILL_AGAIN_MS)


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _READ_BYTES)
    finally:
        os.close(descriptor)
