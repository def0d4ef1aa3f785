"""The machines of a chaos run that have their own troubles: one sleeps, and one is out of processes for a while.

Whether a sleep ends what it should is seen when the machine wakes; what became of a refusal, in the logs of the jobs.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event as Wakeup
from types import MappingProxyType
from typing import Final

from airunner.agent.launcher.child.tree import descendants
from tests.acceptance import bounded, suspending
from tests.acceptance.chaos_processes import Victim, job_processes, kill

STARTERS: Final = ("airunner-launch", "airunner-keeper")  # who starts processes for an agent, itself and nothing else
BOUND: Final = "--nproc=4096"  # what the user may have while the machine is not scarce
SAYS_SCARCE: Final = "no job can be run here now"
LOOK_S: Final = 0.02
WAKING_S: Final = 0.5  # a lease that was nearly over when a short sleep began is over when it ends
LOOKS: Final = 50  # for keepers to end what is past its lease: they take milliseconds


class Suspension:
    """The sleeps of an agent's whole machine: agent, launcher, keepers and jobs stop, and with them their clock."""

    def __init__(self, folder: Path, home: Path, lease_s: float) -> None:
        self.sleeps = 0
        self.outslept = 0  # leases of jobs that ran, which a sleep was longer than
        self._home = home
        self._lease_s = lease_s
        self._file = folder / "slept"
        self._slept_s = 0.0
        self._since_s = 0.0
        self._agent: Victim | None = None
        self._pids: list[int] = []
        self._woken_s = -WAKING_S
        self._write()

    @property
    def module(self) -> list[str]:
        """What the agent is started by, in the place of `airunner`."""
        return [suspending.MODULE, str(self._file)]

    @property
    def asleep(self) -> frozenset[int]:
        """Processes that do nothing now, or have woken so lately that keepers may not have looked at their leases."""
        awake = self._agent is None and time.monotonic() >= self._woken_s + WAKING_S
        return frozenset() if awake else frozenset(self._pids)

    def begin(self, agent: Victim) -> bool:
        """Stop all that is there, if there is a job; a launcher comes before its keepers, which it would wake."""
        tree = {one.pid for one in descendants(agent.pid)}
        if not any(one.pid in tree for one in job_processes(self._home)):
            return False
        agent.stop()
        self.sleeps += 1
        self._agent = agent
        self._pids = []
        while fresh := [one.pid for one in descendants(agent.pid) if one.alive and one.pid not in self._pids]:
            for pid in fresh:
                kill(pid, signal.SIGSTOP)
                self._pids.append(pid)
        self._since_s = time.monotonic()
        return True

    def end(self) -> list[str]:
        """Wake all that slept; what then goes on beyond its lease, and should not."""
        if self._agent is None:
            return []
        jobs = [one for one in job_processes(self._home) if one.pid in self.asleep]
        slept_s = time.monotonic() - self._since_s
        self._slept_s += slept_s
        self._write()
        self._agent.mend()
        for pid in self._pids:
            kill(pid, signal.SIGCONT)
        self._agent, self._woken_s = None, time.monotonic()
        if slept_s < self._lease_s:
            return []
        self.outslept += len({one.job_id for one in jobs})
        for _ in range(LOOKS):
            jobs = [one for one in jobs if one.alive]
            if not jobs:
                break
            Wakeup().wait(LOOK_S)
        return [f"{one.job_id}: {one.command} of attempt {one.attempt}, after {slept_s:.1f} s asleep" for one in jobs]

    def _write(self) -> None:
        """In place: it is mapped by those that read it."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(suspending.SECONDS.pack(self._slept_s))


class Scarcity:
    """A machine that refuses processes for a while: those that start jobs there may start none. Only an ordinary user
    is refused, and so the agent has a home of its own; where that is not possible `why_not` says so.
    """

    def __init__(self, home: Path) -> None:
        self.home = home / "scarce"
        self.times = 0
        self.why_not = bounded.WHY_NOT
        self._agent: Victim | None = None
        self._bounded: list[int] = []
        self._pid = self._said = 0

    @property
    def variables(self) -> Mapping[str, str]:
        """The agent's environment, for `bounded`."""
        return MappingProxyType(
            {
                bounded.USER_VARIABLE: str(bounded.user()),
                bounded.BOUND_VARIABLE: BOUND,
                "AIRUNNER_HOME": str(self.home),
                "HOME": str(self.home),
            }
        )

    def prepare(self) -> None:
        """Make the home, with the keys of the one that it is in."""
        shutil.copytree(self.home.parent / "certs", self.home / "certs")
        bounded.give(self.home)
        self.home.parent.chmod(0o711)

    def begin(self, agent: Victim) -> bool:
        """Whether there is somebody to bound. The jobs that run there stay, and may start what they like."""
        self._agent, self._pid, self._said = agent, agent.pid, agent.count(SAYS_SCARCE)
        while fresh := [pid for pid in _starters(agent.pid) if pid not in self._bounded]:
            for pid in fresh:
                bounded.bound(pid, "--nproc=0:")
                self._bounded.append(pid)
        self.times += bool(self._bounded)
        return bool(self._bounded)

    @property
    def felt(self) -> bool:
        """Whether the agent has met it, or is another by now."""
        agent = self._agent
        return agent is None or agent.pid != self._pid or agent.count(SAYS_SCARCE) > self._said

    def end(self) -> None:
        """As many processes as before."""
        for pid in self._bounded:
            bounded.bound(pid, BOUND)
        self._bounded = []


def _starters(agent: int) -> list[int]:
    """The launcher and the keepers of this agent."""
    return [one.pid for one in descendants(agent) if one.alive and _name(one.pid) in STARTERS]


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
