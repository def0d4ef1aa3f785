"""Control groups (cgroup v2): one for each keeper, if this machine allows groups. Standard library only.

```
<our own group>/
└── airunner-<launcher's pid>-<its mark>/
    ├── 1/      a keeper, and the processes of its job
    └── 2/
```

A job's processes start in the group of their keeper. A group can be killed in one step, which no fork outruns; it can
have limits; and the kernel counts the processes in it that it has killed for lack of memory. A keeper enters its group
once, before its first job, because moving a process takes the kernel some 10 ms.

Without control groups, `tree.py` alone finds a job's processes. See cgroups(7) and the kernel's cgroup-v2 document.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from airunner.agent.launcher.child.tree import KILL_AGAIN_MS, signal_each

PREFIX: Final = "airunner-"
_EVENTS_BYTES: Final = 4_096  # more than cgroup.events and memory.events have: some short lines


class Limits(NamedTuple):
    """Limits of each job; None: no limit."""

    memory_bytes: int | None = None
    processes: int | None = None

    @property
    def controllers(self) -> list[str]:
        """The controllers that the kernel must offer for these limits."""
        asked = {"memory": self.memory_bytes, "pids": self.processes}
        return [name for name, bound in asked.items() if bound is not None]


def own_group() -> Path | None:
    """Return the folder of this process's control group, if the process may make groups in it."""
    with suppress(OSError, StopIteration):  # no cgroup v2, or no permission
        mounts = map(str.split, Path("/proc/self/mounts").read_text().splitlines())
        mount = next(fields[1] for fields in mounts if fields[2] == "cgroup2")
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        path = next(line.removeprefix("0::") for line in lines if line.startswith("0::"))
        folder = Path(mount, path.lstrip("/"))
        probe = folder / f"{PREFIX}probe-{os.getpid()}"
        probe.mkdir()
        probe.rmdir()
        return folder
    return None


def missing_controllers(group: Path, limits: Limits) -> list[str]:
    """List the controllers that `limits` need and the kernel does not offer in this group."""
    offered: list[str] = []
    with suppress(OSError):
        offered = (group / "cgroup.controllers").read_text().split()
    return [name for name in limits.controllers if name not in offered]


class OomKills:
    """OOM kills in one control group, whose file is opened once, because it is read for each job."""

    def __init__(self, group: Path | None) -> None:
        self._events: int | None = None
        if group is not None:
            with suppress(OSError):  # the kernel or this group does not count memory
                self._events = os.open(group / "memory.events", os.O_RDONLY | os.O_CLOEXEC)

    def count(self) -> int:
        """Return how many processes the kernel has killed for lack of memory; 0 if that is not known."""
        if self._events is not None:
            with suppress(OSError, ValueError):
                for line in os.pread(self._events, _EVENTS_BYTES, 0).splitlines():
                    name, _, count = line.partition(b" ")
                    if name == b"oom_kill":
                        return int(count)
        return 0


def launchers_group(base: Path, pid: int, mark: str) -> Path:
    """Return the folder of a launcher's control groups, below `base`."""
    return base / f"{PREFIX}{pid}-{mark}"


def end_groups(folder: Path, within_s: float) -> list[int]:
    """Kill all processes in a dead launcher's groups, and remove the groups; return processes left after `within_s`."""
    until_s = time.monotonic() + within_s
    while folder.is_dir():
        change = _opened_events(folder)
        groups = [Path(path) for path, _, _ in os.walk(folder, topdown=False)]  # also groups that a job has made
        with suppress(OSError):
            (folder / "cgroup.kill").write_text("1")
        left = [pid for group in groups for pid in _processes(group)]
        signal_each(left, signal.SIGKILL)  # kernels before 5.14 have no cgroup.kill
        for group in groups:
            with suppress(OSError):
                group.rmdir()
        _wait_for(change)
        if time.monotonic() >= until_s:
            return left
    return []


class Groups:
    """Control groups of the launcher, below `base` (None: no groups). A keeper whose group cannot be made has none."""

    def __init__(self, base: Path | None, limits: Limits, mark: str) -> None:
        self._limits = limits
        self._folder: Path | None = None
        if base is not None:
            with suppress(OSError):
                for left in base.glob(f"{PREFIX}[0-9]*"):  # left by killed launchers
                    if not Path("/proc", left.name.removeprefix(PREFIX).partition("-")[0]).exists():
                        _remove(left)
                folder = launchers_group(base, os.getpid(), mark)
                folder.mkdir()
                self._folder = folder
                _enable(base, limits)
                _enable(folder, limits)

    def enter(self, number: int) -> Path | None:
        """Make the group of keeper `number`, and move this process into it; None: there is no group."""
        if self._folder is None:
            return None
        group = self._folder / str(number)
        try:
            group.mkdir()
            for name, bound in (("memory.max", self._limits.memory_bytes), ("pids.max", self._limits.processes)):
                if bound is not None:
                    (group / name).write_text(str(bound))
            if self._limits.memory_bytes is not None:
                with suppress(OSError):
                    (group / "memory.swap.max").write_text("0")  # otherwise a job at its limit swaps
            (group / "cgroup.procs").write_text("0")
        except OSError:
            return None
        return group

    def end(self, number: int) -> None:
        """Kill the processes left in the group of a dead keeper, and remove the group if it is empty."""
        if self._folder is not None:
            group = self._folder / str(number)
            with suppress(OSError):
                (group / "cgroup.kill").write_text("1")
            with suppress(OSError):
                group.rmdir()

    def close(self) -> None:
        """Remove the groups: no process is left."""
        if self._folder is not None:
            _remove(self._folder)


def _enable(group: Path, limits: Limits) -> None:
    """Enable the controllers for groups below `group`; if refused, move us and the agent to a leaf, and retry."""
    if not limits.controllers:
        return
    words = " ".join(f"+{name}" for name in limits.controllers)
    try:
        (group / "cgroup.subtree_control").write_text(words)
    except OSError:
        leaf = group / f"{PREFIX}own"
        leaf.mkdir(exist_ok=True)
        for pid in (os.getpid(), os.getppid()):
            (leaf / "cgroup.procs").write_text(str(pid))
        (group / "cgroup.subtree_control").write_text(words)


def _opened_events(group: Path) -> int | None:
    """Open a descriptor that `poll` reports when the last process in or below `group` has ended."""
    with suppress(OSError):
        descriptor = os.open(group / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        os.read(descriptor, _EVENTS_BYTES)  # `poll` reports only changes since the last read
        return descriptor
    return None


def _wait_for(change: int | None) -> None:
    """Wait until the last process of the group has ended, at most `KILL_AGAIN_MS`."""
    poll = select.poll()
    if change is not None:
        poll.register(change, select.POLLPRI)
    poll.poll(KILL_AGAIN_MS)
    if change is not None:
        os.close(change)


def _processes(group: Path) -> list[int]:
    try:
        return [int(word) for word in (group / "cgroup.procs").read_text().split()]
    except OSError:  # the group is gone
        return []


def _remove(folder: Path) -> None:
    """Remove a launcher's folder and its groups, up to the first group that still has a process."""
    with suppress(OSError):
        for group in folder.iterdir():
            if group.is_dir():
                group.rmdir()
        folder.rmdir()
