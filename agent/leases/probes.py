"""Probes: cheap tests of whether this machine can run jobs again after it refused one.

Processes, memory and open files are tested by starting a process that does nothing. The disk is tested by writing a
small file in the agent's home and, after a refusal guessed from a failed git or hook, also by its free space.
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
FILE_BYTES: Final = 65_536  # the default size of a batch of output
ROOM_BYTES: Final = 64 * 1_048_576  # a disk with this much free space is not full: what does not fit is too large
GROWN_BYTES: Final = 1_048_576  # the free space must grow by this much before a probe passes after a guessed refusal
PROBE: Final = LaunchSpec(("true",), {"PATH": os.defpath}, Path("/"))


class Probes:
    """Probes of one agent: of the disk of its `home`, and of starting processes with its `launcher`."""

    def __init__(self, launcher: Launcher, home: Path) -> None:
        self._launcher = launcher
        self._home = home

    async def passes(self, refusal: MachineRefused) -> bool:
        """Test whether the machine can do now what it refused."""
        if refusal.scarce is Scarce.DISK:
            room_bytes = refusal.room_bytes or (ROOM_BYTES if refusal.guessed else 0)
            return free_bytes(self._home) >= room_bytes and takes_writes(self._home)
        return await self._starts()

    def raise_bar(self, refusal: MachineRefused) -> None:
        """Require more free space than the disk has now, which was too little."""
        refusal.room_bytes = min(ROOM_BYTES, free_bytes(self._home) + GROWN_BYTES)

    async def _starts(self) -> bool:
        try:
            process = await self._launcher.launch(PROBE)
            async with attended(process):
                await process.wait()
                await process.end(0)
        except LaunchFailed:
            return True  # there is no command `true`, but the process that looked for it could start
        except (MachineRefused, LauncherDied, LeaseEnded):
            return False
        return True


def takes_writes(folder: Path) -> bool:
    """Test whether a batch of output can be written to the disk of `folder` now."""
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
    """Return the free bytes on the disk of `folder`; 0: they cannot be determined."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return 0
    return disk.f_bavail * disk.f_frsize
