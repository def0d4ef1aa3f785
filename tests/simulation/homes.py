"""The disks of simulated agents, which may be full: then nothing of an agent's own is written.

Agents write real files. Where the product hands bytes to the kernel, the machine that it runs on is asked first.
"""

from __future__ import annotations

import errno
from collections import Counter
from pathlib import Path

from airunner.agent.attempt import attempt
from airunner.agent.leases import probes
from airunner.agent.output import spool
from airunner.agent.workspace import workspace
from tests.simulation.machine import this_machine


def may_be_full(rare: Counter[str]) -> None:
    """From here on a machine whose `disk_full` is set takes no spool, no workspace and no probe."""
    write_all, make, writes = spool._write_all, workspace._make, probes.takes_writes

    def written(descriptor: int, packed: bytes) -> None:
        _require_room(rare)
        write_all(descriptor, packed)

    def made(folder: Path) -> None:
        _require_room(rare)
        make(folder)

    def tried(folder: Path) -> bool:
        machine = this_machine()
        return not (machine is not None and machine.disk_full) and writes(folder)

    spool._write_all, workspace._make = written, made
    probes.takes_writes = attempt.takes_writes = tried


def _require_room(rare: Counter[str]) -> None:
    """Raises `OSError`."""
    machine = this_machine()
    if machine is not None and machine.disk_full:
        rare["an agent's disk was full"] += 1
        raise OSError(errno.ENOSPC, "No space left on device")
