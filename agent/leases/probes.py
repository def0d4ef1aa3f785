"""Probes: cheap tests of whether this machine still refuses what it has refused.

For processes and descriptors: start a process that does nothing, as jobs are started. For the disk: write a small file
in the agent's home; where a checkout found no room, free space counts as well, because it needs more than a small file.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from airunner.agent.launcher.attending import attended
from airunner.agent.launcher.contract import Launcher, LauncherDied, LaunchFailed, LaunchSpec, LeaseEnded
from airunner.agent.launcher.refusal import MachineRefused, Scarce

FILE: Final = "probe"
FILE_BYTES: Final = 65_536  # as much as a batch of a job's output
ROOM_BYTES: Final = 64 * 1_048_576  # free on the disk: a checkout that does not fit is too large, and the disk not full
GROWN_BYTES: Final = 1_048_576  # more than there was when a checkout found no room: then it is worth another try
PROBE: Final = LaunchSpec(("true",), {"PATH": os.defpath}, Path("/"))


class Probes:
    """Probes of the agent with this `home`, which starts its processes by `launcher`."""

    def __init__(self, launcher: Launcher, home: Path) -> None:
        self._launcher = launcher
        self._home = home

    async def passes(self, refusal: MachineRefused) -> bool:
        """Return whether the machine now does what it refused."""
        if refusal.scarce is Scarce.DISK:
            room_bytes = refusal.room_bytes or (ROOM_BYTES if refusal.guessed else 0)
            return free_bytes(self._home) >= room_bytes and takes_writes(self._home)
        return await self._starts()

    def raise_bar(self, refusal: MachineRefused) -> None:
        """Require more room than the disk has now, which was not enough."""
        refusal.room_bytes = min(ROOM_BYTES, free_bytes(self._home) + GROWN_BYTES)

    async def _starts(self) -> bool:
        try:
            process = await self._launcher.launch(PROBE)
            async with attended(process):
                await process.wait()
                await process.end(0)
        except LaunchFailed:
            return True  # a machine without `true`, but with a process to look for it
        except (MachineRefused, LauncherDied, LeaseEnded):
            return False
        return True


def takes_writes(folder: Path) -> bool:
    """Return whether the disk of `folder` has room for a batch of output now."""
    path = folder / FILE
    try:
        path.write_bytes(bytes(FILE_BYTES))
    except OSError:
        return False
    finally:
        with suppress(OSError):
            path.unlink()
    return True


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of `folder`; 0 where that cannot be seen."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return 0
    return disk.f_bavail * disk.f_frsize
