"""Held lease: a lease as its agent holds it, with its deadlines and the processes that run under it.

```
 asked ─────────── visibility timeout ───────────► deadline
                       │             │                └ the broker may give the job to another agent
                       │             └ kill_s: the keepers kill what still runs, even if the agent is stopped
                       └ end_s: the agent ends the attempt
```

The deadline is measured on a clock of this machine that counts its sleep (`Edges.boot_s`), from *before* the request
that granted or renewed the lease was sent: however long the reply took, the broker counts from later.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from airunner.agent.flag import Flag
from airunner.agent.launcher.contract import Launcher, LaunchSpec, Process
from airunner.protocol.replies import JobLease

MARGIN_SHARE: Final = 10  # the agent ends the attempt a tenth of the visibility timeout before the deadline
MARGIN_S_MAX: Final = 5.0  # and at most this long before
KEEPER_SHARE: Final = 2  # the keepers kill when half of the margin is left


class HeldLease:
    """Lease that this agent holds: `lost` is set when it no longer does, `cancelled` when the job is cancelled."""

    def __init__(self, lease: JobLease, asked_s: float, visibility_s: float) -> None:
        self.lease = lease
        self.lost = Flag()
        self.cancelled = Flag()
        self.renewed_s = asked_s
        self._visibility_s = visibility_s
        self._margin_s = min(MARGIN_S_MAX, visibility_s / MARGIN_SHARE)
        self._processes: list[Process] = []  # of the attempt: a few gits and the command

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
        """The instant at which the keepers kill its processes."""
        return self.renewed_s + self._visibility_s - self._margin_s / KEEPER_SHARE

    def renew(self, asked_s: float) -> None:
        """Move the deadlines: the broker has renewed the lease, and was asked to at `asked_s`."""
        self.renewed_s = max(self.renewed_s, asked_s)
        for process in self._processes:
            process.keep_until(self.kill_s)

    def add_process(self, process: Process, kept_until_s: float) -> None:
        """Keep a process, which was started to live until `kept_until_s`, for as long as the lease."""
        if kept_until_s != self.kill_s:  # the lease was renewed while the process was started
            process.keep_until(self.kill_s)
        self._processes.append(process)


class LeasedLauncher(Struct, frozen=True):
    """Launcher of one attempt: a `Starter` whose processes live no longer than the lease."""

    launcher: Launcher
    held: HeldLease
    user: tuple[int, ...] = ()  # as in LaunchSpec

    async def launch(self, spec: LaunchSpec) -> Process:
        """Start a command; raises as `Starter.launch`."""
        until_s = self.held.kill_s
        process = await self.launcher.launch(replace(spec, user=self.user), until_s)
        self.held.add_process(process, until_s)
        return process
