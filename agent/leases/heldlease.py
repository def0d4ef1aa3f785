"""Held lease: a lease that this agent has, with its deadlines and the processes that run under it.

```
 request sent ──── visibility timeout ───────────► deadline
                       │             │                └ the broker may give the job to another agent
                       │             └ kill_s: the keepers kill the job's processes, even if the agent is stopped
                       └ end_s: the agent ends the attempt
```

The agent measures from the moment *before* it sends the request that gets or renews the lease, on a clock that also
counts while the machine sleeps (`Edges.boot_s`). The broker measures from a later moment, so its deadline is later too.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from airunner.agent.flag import Flag
from airunner.agent.launcher.contract import Launcher, LaunchSpec, Process
from airunner.protocol.fields import TerminalSize
from airunner.protocol.replies import JobLease

MARGIN_SHARE: Final = 10  # the agent ends the attempt a tenth of the visibility timeout before the deadline
MARGIN_S_MAX: Final = 5.0  # but at most this many seconds before it
KEEPER_SHARE: Final = 2  # the keepers kill the processes when half of that time is left


class HeldLease:
    """Lease of this agent: `lost` is set when its attempt has to end, `cancelled` when the job is cancelled."""

    def __init__(self, lease: JobLease, asked_s: float, visibility_s: float, *, was_queued: bool = False) -> None:
        self.lease = lease
        self.lost = Flag()
        self.cancelled = Flag()
        self.was_queued = was_queued  # so more jobs may wait, and a short one may be reported late
        self.renewed_s = asked_s
        self._visibility_s = visibility_s
        self._margin_s = min(MARGIN_S_MAX, visibility_s / MARGIN_SHARE)
        self._processes: list[Process] = []  # all that the attempt has started: git, hooks, the command
        self._terminal: TerminalSize | None = None  # size that was sent last; the job may change it itself

    @property
    def key(self) -> tuple[str, int]:
        """The attempt's job id and number."""
        return self.lease.job_id, self.lease.attempt

    @property
    def end_s(self) -> float:
        """The instant at which the agent ends the attempt."""
        return self.renewed_s + self._visibility_s - self._margin_s

    @property
    def kill_s(self) -> float:
        """The instant at which the keepers kill the attempt's processes."""
        return self.renewed_s + self._visibility_s - self._margin_s / KEEPER_SHARE

    def renew(self, asked_s: float) -> None:
        """Postpone the deadlines: the broker has renewed the lease, by a request sent at `asked_s`."""
        self.renewed_s = max(self.renewed_s, asked_s)
        for process in self._processes:
            process.keep_until(self.kill_s)

    def add_process(self, process: Process, kept_until_s: float) -> None:
        """Add a process with the deadline `kept_until_s`, so that renewals of the lease postpone the deadline."""
        if kept_until_s != self.kill_s:  # the lease was renewed while the process was starting
            process.keep_until(self.kill_s)
        if self._terminal is not None:
            process.resize(self._terminal)
        self._processes.append(process)

    def resize(self, size: TerminalSize | None) -> None:
        """Set the size of the job's terminal, now or when it is open; None or the last size again: it stays."""
        if size is not None and size != self._terminal:
            self._terminal = size
            for process in self._processes:
                process.resize(size)


class LeasedLauncher(Struct, frozen=True):
    """Launcher of one attempt: a `Starter` whose processes do not outlive the lease."""

    launcher: Launcher
    held: HeldLease
    user: tuple[int, ...] = ()  # user id, group id and supplementary group ids; empty: those of the agent

    async def launch(self, spec: LaunchSpec) -> Process:
        """Start a command; raises as `Starter.launch`."""
        until_s = self.held.kill_s
        process = await self.launcher.launch(replace(spec, user=self.user) if self.user else spec, until_s)
        if process.ran_s is None:
            self.held.add_process(process, until_s)
        return process
