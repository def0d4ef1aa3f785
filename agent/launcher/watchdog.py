"""Keepers that do not answer: a job may stop its own, and a wait for it would never end.

A stopped one is woken, and killed where that does not help; its job's processes are found by their mark then. The
agent's half: a keeper is the launcher's child and not ours, so it is known by its process id and when it began.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

_STATE, _BEGAN = 0, 19  # fields after the name, see proc_pid_stat(5)
_STOPPED: Final = (b"T", b"t")  # by a signal, or by who traces it


class KeeperProcess:
    """Keeper process, which lives when this is made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = self._stat()[_BEGAN:][:1]

    @property
    def stopped(self) -> bool:
        """Whether it is stopped."""
        fields = self._stat()
        return fields[_BEGAN:][:1] == self._began and fields[_STATE] in _STOPPED

    def wake(self) -> None:
        """Continue it, if it was stopped."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(OSError):  # it is gone
            descriptor = os.pidfd_open(self._pid)
            try:
                if self._began and self._stat()[_BEGAN:][:1] == self._began:  # it is the same still
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    def _stat(self) -> list[bytes]:
        with suppress(OSError):
            return Path(f"/proc/{self._pid}/stat").read_bytes().rpartition(b")")[2].split()
        return []
