"""Process marks: an environment variable by which the processes of a job are found again. Standard library only.

Normally a keeper ends its job's processes. When launcher and keepers are killed at once, the agent finds the remaining
processes by the mark that they have inherited. Processes in the session of a marked process, and descendants of marked
processes, count as marked too.

```
AIRUNNER_MARK=<home>.<launcher>           the launcher and its keepers
AIRUNNER_MARK=<home>.<launcher>.<number>  a command, git or hook of one job, and its descendants
```

<home> and <launcher> are random, so that no process of another agent has them. A process that clears its environment,
leaves its session and outlives its parents is found by its control group, or not at all. Only root can read the marks
of another user's processes.
"""

from __future__ import annotations

import os
import secrets
import select
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from airunner.agent.launcher.child.tree import KILL_AGAIN_MS, command_of, name_of, process_ids, signal_each, status_of

VARIABLE: Final = "AIRUNNER_MARK"
_NAME: Final = VARIABLE.encode()
_HOME_BYTES: Final = 16  # random bytes of <home>
_LAUNCHER_BYTES: Final = 8  # random bytes of <launcher>
_LOOKS: Final = 2  # passes in a row that must find nothing: during execve(2) a process shows no environment


def new_home_mark() -> str:
    """Make a random mark for an agent's home."""
    return secrets.token_hex(_HOME_BYTES)


def new_launcher_mark(home: str) -> str:
    """Make the mark of a new launcher of this home."""
    return f"{home}.{secrets.token_hex(_LAUNCHER_BYTES)}"


def end_marked(mark: str, within_s: float) -> list[int]:
    """Kill all processes that `marked` finds, and return those that have not ended within `within_s`.

    Passes are repeated until no process is found, so that processes which were started meanwhile are found too.
    """
    until_s = time.monotonic() + within_s
    empty = 0
    while empty < _LOOKS:
        found = marked(mark)
        if not found:
            empty += 1
            continue
        empty = 0
        if time.monotonic() >= until_s:
            return sorted(found)
        for number in (signal.SIGSTOP, signal.SIGKILL):  # a stopped process starts no others
            signal_each(found.values(), number)
        _wait_for(next(iter(found)))
    return []


def marked(mark: str) -> dict[int, int]:
    """Find the living processes whose mark begins with `mark`, those in their sessions, and all their descendants.

    Maps each process to the target of its signal: if the whole session is the job's, the (negative) process group,
    whose members cannot fork meanwhile. A session whose leader lives and has no mark is not the job's.
    """
    others = [status for pid in process_ids() if pid != os.getpid() and (status := status_of(pid)) is not None]
    alive = {status.pid: status for status in others if status.alive}
    found = {pid for pid in alive if _carries(pid, os.fsencode(mark))}
    sessions = {alive[pid].session for pid in found} - {os.getsid(0)}
    sessions = {session for session in sessions if session in found or session not in alive}
    found |= {pid for pid, status in alive.items() if status.session in sessions}
    while more := {pid for pid, status in alive.items() if status.parent in found} - found:
        found |= more
    return {pid: -alive[pid].group if alive[pid].session in sessions else pid for pid in found}


def commands_of(pids: Iterable[int]) -> str:
    """List ids and command lines of processes, for a message."""
    return ", ".join(f"{pid} ({command_of(pid) or name_of(pid)})" for pid in pids)


def _wait_for(pid: int) -> None:
    """Wait for a process's end, for at most `KILL_AGAIN_MS`."""
    with suppress(OSError):
        descriptor = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(KILL_AGAIN_MS)
        os.close(descriptor)


def _carries(pid: int, mark: bytes) -> bool:
    with suppress(OSError):  # the process has ended, or is another user's
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            name, _, value = entry.partition(b"=")
            if name == _NAME and (value == mark or value.startswith(mark + b".")):
                return True
    return False
