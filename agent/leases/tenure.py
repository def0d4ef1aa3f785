"""A lease as its agent holds it: until when, and what runs under it.

```
 asked ─────────── visibility timeout ───────────► deadline
                       │             │                └ the broker may give the job to another agent
                       │             └ kill_s: the keepers kill what still runs, be the agent stopped or not
                       └ end_s: the agent ends the attempt
```

The deadline is measured on a clock of this machine that counts its sleep in (`Edges.boot_s`), from *before* the request
that granted or renewed the lease was sent: however long the answer took, the broker counts from later.
"""

from __future__ import annotations

from typing import Final

from airunner.agent.flag import Flag
from airunner.agent.launcher.contract import Launcher, LaunchSpec, Process
from airunner.protocol.messages import JobLease

MARGIN_SHARE: Final = 10  # a tenth of the visibility timeout, and at most
MARGIN_S_MAX: Final = 5.0  # so long before the deadline the agent ends the attempt
KEEPER_SHARE: Final = 2  # the keepers kill when half of the margin is left


class Tenure:
    """One lease; `lost` is set when it is ours no more, `cancelled` when the job is to be ended by us."""

    def __init__(self, lease: JobLease, asked_s: float, visibility_s: float) -> None:
        self.lease = lease
        self.lost = Flag()
        self.cancelled = Flag()
        self.renewed_s = asked_s
        self._visibility_s = visibility_s
        self._margin_s = min(MARGIN_S_MAX, visibility_s / MARGIN_SHARE)
        self._processes: list[Process] = []  # those of one attempt: a few gits and the command

    @property
    def key(self) -> tuple[str, int]:
        """The attempt."""
        return self.lease.job_id, self.lease.attempt

    @property
    def end_s(self) -> float:
        """When the agent ends the attempt."""
        return self.renewed_s + self._visibility_s - self._margin_s

    @property
    def kill_s(self) -> float:
        """When the keepers kill its processes."""
        return self.renewed_s + self._visibility_s - self._margin_s / KEEPER_SHARE

    def renew(self, asked_s: float) -> None:
        """The broker has renewed the lease; it was asked at `asked_s`."""
        self.renewed_s = max(self.renewed_s, asked_s)
        for process in self._processes:
            process.keep_until(self.kill_s)

    def take(self, process: Process, kept_until_s: float) -> None:
        """From now on this process, which was started to live until then, lives as long as the lease."""
        if kept_until_s != self.kill_s:  # the lease was renewed while it was started
            process.keep_until(self.kill_s)
        self._processes.append(process)


class LeasedLauncher:
    """The `Starter` of the attempt that `tenure` is for."""

    def __init__(self, launcher: Launcher, tenure: Tenure) -> None:
        self._launcher = launcher
        self._tenure = tenure

    async def launch(self, spec: LaunchSpec) -> Process:
        """Start a command.

        Raises `LaunchFailed`, `LauncherDied`, `LeaseEnded`.
        """
        until_s = self._tenure.kill_s
        process = await self._launcher.launch(spec, until_s)
        self._tenure.take(process, until_s)
        return process
